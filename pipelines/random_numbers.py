"""Random numbers by counter: a function of (seed, jet, purpose, step), whatever is drawn before, beside or after them.

They are Philox 4x64-10 (Salmon et al., SC 2011, doi:10.1145/2063384.2063405), which numpy has too. A CPU uses numpy's,
any other device the same arithmetic in torch. The integers, and so the uniform numbers, are the same bit for bit on
every device and in every batch; normal numbers are the same to rounding.
This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
"""Constants of Philox 4x64."""

LOW_HALF = 0xFFFFFFFF

CACHED = 2**19
"""Normal numbers that a CPU makes at once, so that they stay in its cache."""


@dataclass(frozen=True)
class RandomNumbers:
    """The random numbers of some jets: those of each depend on its seed and its index alone.

    The key of the counter-based generator is (seed, purpose), its counter (block, step, index, 0).

    Attributes:
        seeds: (N,) int64 seed of each jet, on the device where numbers are wanted.
        jets: (N,) int64 index of each jet in the sequence of its seed, on the same device.
    """

    seeds: torch.Tensor
    jets: torch.Tensor

    @classmethod
    def of_seed(cls, seed: int, first: int, count: int, device: torch.device | str = "cpu") -> RandomNumbers:
        """Those of jets `first` to `first + count - 1` of one seed, 0 to 2^63 - 1."""
        jets = torch.arange(first, first + count, device=device)
        return cls(torch.full_like(jets, seed), jets)

    @classmethod
    def of_generators(
        cls,
        generator: torch.Generator | list[torch.Generator] | None,
        first: int,
        count: int,
        device: torch.device | str = "cpu",
    ) -> RandomNumbers:
        """Those of jets `first` to `first + count - 1` of a seed drawn from the generator, or at random without one.

        A list has a generator for each jet.

        Raises:
            ValueError: If generators are given for another number of jets.
        """
        if not isinstance(generator, list):
            return cls.of_seed(_seed_from(generator), first, count, device)
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators were given for {count} jets")
        seeds = torch.tensor([_seed_from(each) for each in generator]).to(device)
        return cls(seeds, torch.zeros_like(seeds))

    def generators(self, purpose: str) -> list[torch.Generator]:
        """A CPU generator for each jet, for what draws by itself."""
        return [torch.Generator().manual_seed(seed) for seed in (self.words(purpose, 1)[:, 0] >> 1).tolist()]

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: torch.Tensor | slice) -> RandomNumbers:
        """Those of the jets at some indices."""
        return RandomNumbers(self.seeds[rows], self.jets[rows])

    def uniform(self, purpose: str, count: int, step: int = 0) -> torch.Tensor:
        """(N, count) float64 uniform numbers inside (0, 1), of 32 bits each.

        Args:
            purpose: Up to eight characters; each purpose has its own numbers.
            count: Numbers a jet.
            step: Each step has its own numbers.
        """
        words = self.words(purpose, -(-count // 2), step).view(torch.int32)[:, :count]
        return words.to(torch.float64) * 2.0**-32 + (0.5 + 2.0**-33)

    def normal(self, purpose: str, shape: Sequence[int], step: int | torch.Tensor = 0) -> torch.Tensor:
        """(N, *shape) float32 unit normal numbers, by the transform of Box and Muller.

        Args:
            purpose: Up to eight characters; each purpose has its own numbers.
            shape: Of one jet's numbers.
            step: Each step has its own numbers; one for all jets, or (N,) int64.
        """
        count = math.prod(shape)
        pairs = -(-count // 2)
        numbers = torch.empty(len(self), count, device=self.seeds.device)
        at_once = max(1, CACHED // count) if numbers.device.type == "cpu" else len(self)
        for start in range(0, len(self), at_once):
            rows = slice(start, start + at_once)
            words = self[rows].words(purpose, pairs, step if isinstance(step, int) else step[rows])
            box_muller(words.view(torch.int32).unflatten(1, (2, pairs)), numbers[rows])
        return numbers.view(-1, *shape)

    def words(self, purpose: str, count: int, step: int | torch.Tensor = 0) -> torch.Tensor:
        """(N, count) int64, all of whose 64 bits are random.

        Raises:
            ValueError: If the purpose is longer than eight characters.
        """
        name = purpose.encode()
        if len(name) > 8:
            raise ValueError(f"the purpose of random numbers has at most 8 characters, got {purpose!r}")
        steps = torch.full_like(self.jets, step) if isinstance(step, int) else step
        make = words_of_numpy if self.seeds.device.type == "cpu" else words_of_torch
        return make(self, int.from_bytes(name, "little"), count, steps)


def box_muller(bits: torch.Tensor, out: torch.Tensor) -> None:
    """Pairs of independent unit normal numbers (Box and Muller, Ann. Math. Stat. 29 (1958) 610).

    Args:
        bits: (N, 2, pairs) int32, all of whose bits are random.
        out: (N, 2 pairs) float32 to write to, or (N, 2 pairs - 1), which leaves out the last number.
    """
    pairs = bits.shape[2]
    # 31 bits for the radius: inside (0, 1], and precise where it is small.
    radius = (bits[:, 0] & 0x7FFFFFFF).to(torch.float32).mul_(2.0**-31).add_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = bits[:, 1].to(torch.float32).mul_(math.tau * 2.0**-32)
    torch.mul(radius, angle.cos(), out=out[:, :pairs])
    rest = out.shape[1] - pairs
    torch.mul(radius[:, :rest], angle[:, :rest].sin_(), out=out[:, pairs:])


def words_of_numpy(numbers: RandomNumbers, purpose: int, count: int, steps: torch.Tensor) -> torch.Tensor:
    """(N, count) int64 at steps (N,), on the CPU, where numpy makes them several times faster than torch."""
    words = np.empty((len(numbers), count), np.uint64)
    generator = np.random.Philox(0)
    state = generator.state
    for row, seed, jet, step in zip(words, numbers.seeds.tolist(), numbers.jets.tolist(), steps.tolist(), strict=True):
        before = ((jet % 2**64 << 128) + (step % 2**64 << 64) - 1) % 2**256  # it counts on before it draws
        state["state"]["key"][:] = seed % 2**64, purpose
        state["state"]["counter"][:] = [before >> bits & 2**64 - 1 for bits in (0, 64, 128, 192)]
        generator.state = state
        row[:] = generator.random_raw(count)
    return torch.from_numpy(words.view(np.int64))


def words_of_torch(numbers: RandomNumbers, purpose: int, count: int, steps: torch.Tensor) -> torch.Tensor:
    """(N, count) int64 at steps (N,), on the device of the numbers."""
    block = torch.arange(-(-count // 4), device=numbers.seeds.device).expand(len(numbers), -1)
    zero = torch.zeros_like(block)
    counter = torch.stack([block, zero + steps[:, None], zero + numbers.jets[:, None], zero])
    key = torch.stack([numbers.seeds, torch.full_like(numbers.seeds, as_int64(purpose))])[:, :, None]
    return philox(counter, key).movedim(0, 2).flatten(1)[:, :count].clone(memory_format=torch.contiguous_format)


def philox(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Philox 4x64-10 in the 64-bit arithmetic of any device.

    Args:
        counter: (4, ...) int64, the bits of unsigned numbers.
        key: (2, ...) int64 that broadcasts to it.

    Returns:
        (4, ...) int64.
    """
    multipliers, weyl = (numbers.view(2, *[1] * (counter.ndim - 1)) for numbers in _constants(counter.device))
    halves = multipliers & LOW_HALF, upper_half(multipliers)
    even, odd = counter[::2], counter[1::2]
    for _ in range(ROUNDS):
        even, odd = upper_product(even, *halves).flip(0) ^ odd ^ key, (even * multipliers).flip(0)
        key = key + weyl
    return torch.stack([even, odd], 1).flatten(0, 1)


def upper_product(a: torch.Tensor, b_low: torch.Tensor, b_high: torch.Tensor) -> torch.Tensor:
    """Upper 64 of the 128 bits of a b, a being unsigned numbers whose bits int64 holds, b given as 32-bit halves."""
    a_low, a_high = a & LOW_HALF, upper_half(a)
    middle = torch.addcmul(upper_half(a_low * b_low), a_high, b_low)
    other = torch.addcmul(middle & LOW_HALF, a_low, b_high)
    return torch.addcmul(upper_half(middle) + upper_half(other), a_high, b_high)


def upper_half(a: torch.Tensor) -> torch.Tensor:
    """The upper 32 bits of an int64, as a number that is not negative."""
    return (a >> 32) & LOW_HALF


def _seed_from(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def as_int64(number: int) -> int:
    """The signed number with the bits of an unsigned one."""
    return number - 2**64 if number >= 2**63 else number


@functools.cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers and Weyl numbers: copied to a device once, since each copy would wait for it."""
    both = torch.tensor([[as_int64(number) for number in numbers] for numbers in (MULTIPLIERS, WEYL)], device=device)
    return both[0], both[1]

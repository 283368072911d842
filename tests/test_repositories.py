"""Calls to the Hub by faults: each passes, or ends in one line with what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from fakehub import FakeHub, File, Repo

CLIENT = """
import json, logging, os, sys, time
from pathlib import Path
from jet_diffusion import repositories
repositories.SILENCE = 1.0
waits, said, answers = [], [], {}
time.sleep = waits.append
class Collect(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
repositories.logger.addHandler(Collect())
for case, function, token, arguments in json.load(sys.stdin):
    os.environ["HF_TOKEN"] = token
    try:
        answer = str(getattr(repositories, function)(*arguments))
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    answers[case] = [answer, list(waits), list(said)]
    waits.clear()
    said.clear()
Path(sys.argv[1]).write_text(json.dumps(answers))
"""
"""Makes the calls in a process whose `huggingface_hub` knows the loopback Hub; it notes waits instead of waiting."""

PASSING = [429, 500, 503, "cut", "slow"]
"""Faults that a later try may not meet."""

LINES = {
    401: r"PermissionError: the Hub does not accept the token \(HTTP 401\): log in with `hf auth login`",
    403: r"PermissionError: the Hub refuses access to user/\S+ \(HTTP 403\): take a token that has the right",
    404: r"FileNotFoundError: the Hub does not find user/\S+ \(HTTP 404\)",
    409: r"ConnectionError: somebody else is changing user/\S+ \(HTTP 409\); try again later",
    412: r"ConnectionError: somebody else is changing user/\S+ \(HTTP 412\); try again later",
    429: r"ConnectionError: the Hub asks you to wait 7 s before you ask again \(HTTP 429\)",
    500: r"ConnectionError: the Hub has an error \(HTTP 500\); try again later",
    503: r"ConnectionError: the Hub has an error \(HTTP 503\); try again later",
    "cut": r"ConnectionError: the Hub cannot be reached \(\w+\); try again later",
    "slow": r"ConnectionError: the Hub cannot be reached \(ReadTimeout\); try again later",
}

FOR_EVER = 1000


@pytest.fixture
def hub():
    with FakeHub() as served:
        yield served


@pytest.fixture
def answers(hub, tmp_path):
    """A function that makes calls in one process: case -> (answer, waits, warnings)."""

    def ask(calls):
        """Calls are (case, function, token, arguments)."""
        subprocess.run(
            [sys.executable, "-c", CLIENT, str(tmp_path / "answers.json")],
            input=json.dumps(calls),
            env={**hub.environment(tmp_path / "home"), "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"},
            text=True,
            capture_output=True,
            timeout=600,
            check=True,
        )
        found = json.loads((tmp_path / "answers.json").read_text())
        assert len(found) == len(calls)
        for answer, *_ in found.values():
            assert "\n" not in answer and "hf_" not in answer
        return found

    return ask


@pytest.mark.integration
def test_pushing(hub, answers, tmp_path):
    """Each call of a push, once and for ever; after the fault has gone the same push finishes."""
    cases = {}
    for call in ("create", "preupload", "lfs_batch", "lfs_put", "lfs_verify", "commit"):
        for fault in LINES:
            if call == "create" and fault in (409, 412):  # 409: it exists, as in each second push
                continue
            cases[f"{call}-{fault}-1"] = (call, fault, 1)
            # A file that is there is not verified by the next try; to be slow for ever takes a minute.
            if fault in PASSING and call != "lfs_verify" and (fault != "slow" or call == "create"):
                cases[f"{call}-{fault}-{FOR_EVER}"] = (call, fault, FOR_EVER)
    pushes = []
    for case, (call, fault, times) in cases.items():
        folder = tmp_path / case
        folder.mkdir()
        (folder / "weights.bin").write_text(case)
        (folder / "README.md").write_text("# Jets\n")
        hub.faults[call, f"user/{case}"] = [fault, times]
        pushes.append((case, "push_folder", "hf_any", [str(folder), f"user/{case}", "model", "Push"]))
    found = answers(pushes)
    for case, (_, fault, times) in cases.items():
        answer, waits, _ = found[case]
        if times == 1 and (fault in PASSING or fault in (409, 412)):
            assert answer == f"{hub.url}/user/{case}", case
            assert waits, case
            assert fault != 429 or waits[0] in (7, 8), case  # the Hub's client adds a second
        else:
            assert re.match(LINES[fault], answer), (case, answer)
            assert answer.endswith(f"{tmp_path / case} stays, and the same command pushes it"), case
    hub.faults.clear()
    assert [answer for answer, *_ in answers(pushes).values()] == [f"{hub.url}/user/{case}" for case in cases]
    for case in cases:
        files = hub.repos["models", f"user/{case}"].files()
        assert {name: files[name].data.decode() for name in ("weights.bin", "README.md")} == {
            "weights.bin": case,
            "README.md": "# Jets\n",
        }


def publish(hub, name):
    """A repository with a file, made behind the client's back."""
    hub.repos["models", name] = repo = Repo("models", name, private=False)
    repo.commit({"weights.bin": File(name.encode() * 100, large=True)}, "files", "main")


@pytest.mark.integration
def test_fetching(hub, answers):
    """Each call of a download, without and with a copy in the cache."""
    cases = {f"{call}-{fault}": (call, fault) for call in ("info", "tree", "resolve") for fault in LINES}
    cases["resolve-half"] = ("resolve", "half")
    fetches = [(case, "fetch", "hf_any", [f"user/{case}", "model", ["*.bin"]]) for case in cases]

    def break_calls(times):
        hub.faults.update({(call, f"user/{case}"): [fault, times] for case, (call, fault) in cases.items()})
        for call in ("tree", "resolve"):  # it would take minutes
            hub.faults[call, f"user/{call}-slow"] = ["slow", 1]

    for case in cases:
        publish(hub, f"user/{case}")
    break_calls(FOR_EVER)
    for case, (answer, *_) in answers(fetches).items():
        fault = cases[case][1]
        if case in ("tree-slow", "resolve-slow"):
            assert "snapshots" in answer, answer
        else:
            kind, _, line = LINES["cut" if fault == "half" else fault].partition(": ")
            assert re.match(rf"{kind}: there is no folder user/{case}; {line}", answer), (case, answer)
    break_calls(1)
    for case, (answer, *_) in answers(fetches).items():
        assert ("snapshots" in answer) is (cases[case][1] in (*PASSING, "half", 409, 412)), (case, answer)
    hub.faults.clear()
    assert all("snapshots" in answer for answer, *_ in answers(fetches).values())
    break_calls(FOR_EVER)
    for case, (answer, _, said) in answers(fetches).items():
        call, fault = cases[case]
        assert "snapshots" in answer, (case, answer)
        if call == "info":
            line = LINES[fault].partition(": ")[2]
            assert len(said) == 1 and re.match(rf"{line}.*; taking the copy of user/{case} in the cache", said[0]), said


@pytest.mark.integration
def test_names_that_are_not_there(hub, answers):
    hub.repos["datasets", "user/other"] = Repo("datasets", "user/other", private=False)
    publish(hub, "user/jets")
    asked = {"user/none": None, "user/other": None, "not a name": None, "user/jets": "old"}
    found = answers([(name, "fetch", "hf_any", [name, "model", ["*"], asked[name]]) for name in asked])
    assert [answer for answer, *_ in found.values()] == [
        "FileNotFoundError: user/none is neither a folder nor a model on the Hub; log in for a private one",
        "FileNotFoundError: user/other is neither a folder nor a model on the Hub; but a dataset of that name is",
        "FileNotFoundError: not a name is neither a folder nor the name of a model on the Hub, user/name",
        "FileNotFoundError: the repository user/jets has no revision old",
    ]


def fine_grained(name, *permissions):
    token = {"role": "fineGrained", "fineGrained": {"scoped": [{"entity": {"name": name}, "permissions": permissions}]}}
    return {"auth": {"accessToken": token}}


@pytest.mark.integration
def test_whether_a_token_may_write_is_asked_first(hub, answers):
    hub.users.update(
        {
            "hf_reader": {"auth": {"accessToken": {"role": "read"}}},
            "hf_member": {"orgs": [{"name": "Lab"}]},
            "hf_fine": fine_grained("user", "repo.write"),
            "hf_one": fine_grained("user/jets", "repo.content.read", "repo.write"),
            "hf_look": fine_grained("user", "repo.content.read"),
        }
    )
    allowed = [("write", "user"), ("member", "lab"), ("fine", "user"), ("one", "user")]
    refused = {
        (
            "",
            "user",
        ): "PermissionError: pushing to user/jets needs a token: log in with `hf auth login`",
        (
            "reader",
            "user",
        ): "PermissionError: the token may only read, and pushing to user/jets writes; make another",
        ("write", "lab"): "PermissionError: the token is of user, who may write to user, not to lab; make another at ",
        ("look", "user"): "PermissionError: the token has no right to write to repositories of user; make another at ",
    }
    for fault in (401, 403, *PASSING):
        allowed.append((f"once-{fault}", "user"))
        hub.faults["whoami", f"hf_once-{fault}"] = [fault, 1]
        refused[f"ever-{fault}", "user"] = LINES[fault].replace(r"\S+", "jets")
        hub.faults["whoami", f"hf_ever-{fault}"] = [fault, FOR_EVER]
    allowed = [case for case in allowed if not case[0].startswith(("once-401", "once-403"))]
    calls = [
        (f"{token} {owner}", "require_writable", f"hf_{token}" if token else "", [f"{owner}/jets", "model", "wait"])
        for token, owner in (*allowed, *refused)
    ]
    hub.repos["datasets", "user/jets"] = Repo("datasets", "user/jets", private=False)
    found = answers(calls)
    for token, owner in allowed:
        answer, _, said = found[f"{token} {owner}"]
        assert answer == "None", token
        beside = "user/jets is a dataset on the Hub; a model of the same name is put beside it"
        assert (beside in said) is (owner == "user")
    for (token, owner), line in refused.items():
        answer, *_ = found[f"{token} {owner}"]
        assert re.match(line if token.startswith("ever") else re.escape(line), answer), answer
        assert token[:4] != "ever" or answer.endswith("; wait")

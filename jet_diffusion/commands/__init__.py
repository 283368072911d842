"""The subcommands of `jet-diffusion`, one file each; nothing imports them."""

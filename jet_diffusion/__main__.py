"""`python -m jet_diffusion COMMAND ...`, which launchers of several processes run too."""

from jet_diffusion.cli import main

main()

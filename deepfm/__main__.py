"""`python -m deepfm`."""

from deepfm.cli.app import main

main()

"""`python -m tinyllm`, which is what `torchrun` starts: the same as `tinyllm`."""

from tinyllm.cli import main

if __name__ == "__main__":
    main()

"""``python -m fl_core.cli`` is ``fl``."""

from fl_core.cli import main

if __name__ == "__main__":
    main()

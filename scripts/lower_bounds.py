"""The dependencies of this package at exactly the lower bounds that ``setup.cfg`` declares, as pip takes them.

python -m scripts.lower_bounds setup.cfg
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys

__all__ = ["main", "pinned"]

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+(\[[^\]]*\])?)\s*>=\s*(?P<version>[0-9][0-9.]*[0-9])(,[^;]*)?")


def pinned(requirement: str) -> str:
    """Return a requirement at its lower bound.

    ``===`` takes the version as it is written: other builds of it, with a suffix such as ``+cpu``, do not fit.

    >>> pinned("jsonargparse[signatures]>=4.42.0,<5"), pinned("torch>=2.10.0")
    ('jsonargparse[signatures]===4.42.0', 'torch===2.10.0')

    Raises:
        ValueError: It has no lower bound.
    """
    match = _REQUIREMENT.fullmatch(requirement.strip())
    if match is None:
        raise ValueError(f"{requirement!r} has no lower bound; write it as name>=1.2.0")
    return f"{match['name']}==={match['version']}"


def main(path: str) -> None:
    """Print what is installed with the package and with its tests."""
    parser = configparser.ConfigParser()
    if not parser.read(path):
        raise SystemExit(f"cannot read {path!r}")
    extras = parser["options.extras_require"]
    for line in (*parser["options"]["install_requires"].split("\n"), *extras["test"].split("\n")):
        if line.strip():
            sys.stdout.write(f"{pinned(line)}\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("setup", help="path of setup.cfg")
    main(arguments.parse_args().setup)

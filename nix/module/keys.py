"""keys.py EXAMPLE FILE...: fails if the example has a key that is in none of the files, all TOML."""

import sys
import tomllib


def keys(file: str) -> set[str]:
    found = set()

    def walk(table: dict, prefix: str) -> None:
        for key, value in table.items():
            found.add(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    with open(file, "rb") as opened:
        walk(tomllib.load(opened), "")
    return found


example, *files = sys.argv[1:]
missing = keys(example) - set().union(*map(keys, files))
if missing:
    sys.exit(f"no option of the module becomes {', '.join(sorted(missing))}; {example} has it")

"""A wheel's bill of materials: what it brings along, as cyclonedx-py finds it installed, and the C libraries in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kest_wheels import archives
from kest_wheels.building import bundled
from kest_wheels.commands import environment, run

_OF_THE_ENVIRONMENT = ("pip", "setuptools")  # which every virtual environment has, for itself
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1], encoding="utf-8").read())
sys.exit(str(error) if error else 0)
"""


def describe(wheel: Path, python: Path, tree: Path, *, tools: Path, epoch: int) -> int:
    """Write ``<wheel>.cdx.json`` (CycloneDX 1.6) beside the wheel, valid by its schema; how many components it lists.

    Args:
        wheel: As published.
        python: Of an environment in which it is installed with what it depends on, and nothing else.
        tree: With the pyproject.toml that names the extras.
        tools: The commands of the environment with cyclonedx-py.
        epoch: The document's time.
    """
    out = wheel.with_name(f"{wheel.name}.cdx.json")
    env = environment(SOURCE_DATE_EPOCH=str(epoch))
    listing = (
        "environment",
        "--output-reproducible",
        "--sv",
        "1.6",
        "--mc-type",
        "library",
        "--pyproject",
        tree / "pyproject.toml",
    )
    run(tools / "cyclonedx-py", *listing, "-o", out, python, cwd=wheel.parent, env=env)
    bill: dict[str, Any] = json.loads(out.read_bytes())

    root = bill["metadata"]["component"]
    root["purl"] = f"pkg:pypi/{root['name']}@{root['version']}?file_name={wheel.name}"
    root["hashes"] = [{"alg": "SHA-256", "content": archives.sha256(wheel)}]
    dropped = {each["bom-ref"] for each in bill["components"] if each["name"] in _OF_THE_ENVIRONMENT}
    libraries = [{**each, "description": "C library, inside the wheel"} for each in bundled(wheel)]
    bill["components"] = [each for each in bill["components"] if each["bom-ref"] not in dropped] + libraries
    graph = {each["ref"]: each for each in bill["dependencies"] if each["ref"] not in dropped}
    graph[root["bom-ref"]].setdefault("dependsOn", []).extend(each["bom-ref"] for each in libraries)
    graph[root["bom-ref"]]["dependsOn"].sort()
    bill["dependencies"] = [*graph.values(), *({"ref": each["bom-ref"]} for each in libraries)]

    out.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", "utf-8")
    run(tools / "python", "-c", _VALIDATE, out, cwd=wheel.parent, env=env)
    return len(bill["components"])

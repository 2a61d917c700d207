"""A small governed pipeline: field data and a person's request come in, a report goes out.

Third parties' data starts at trust 60, a person's request at 40, a model's output at 0. Where flows meet, the weakest
counts, until a sanitiser that policy allows has checked everything. Rego decides about the data steps, Cedar about the
export; the enterprise and platform tiers are asked by both.
"""

from __future__ import annotations

import csv
import json
import os
from importlib.metadata import distribution
from pathlib import Path
from statistics import mean
from typing import Any

from kest import CedarLocalEngine, LocalEd25519Provider, RegoLocalEngine, StaticIdentity, configure, kest_verified

POLICIES = Path(__file__).parent / "policies"
TICKET = "PEN-204"
MEASURES = {  # what an adult penguin of these species can measure
    "bill_length_mm": (30, 62),
    "bill_depth_mm": (12, 23),
    "flipper_length_mm": (165, 240),
    "body_mass_g": (2500, 6500),
}
GROUPS = ("species", "island", "sex")

Record = dict[str, Any]

KEYS = os.environ.get("PENGUIN_KEYS")
"""A folder for the keys of those who sign, which then outlive the process; without it, each process has its own."""


def workload(name: str) -> StaticIdentity:
    """One of those who sign. In production each lives in its own process, and gets its key from SPIRE, a KMS, or a file."""
    return StaticIdentity(f"spiffe://penguins.example/{name}", key_file=Path(KEYS, f"{name}.key") if KEYS else None)


INGEST = workload("ingest")
PORTAL = workload("portal")
ASSISTANT = workload("assistant") if KEYS else LocalEd25519Provider("spiffe://penguins.example/assistant")
CURATOR = workload("curator")
PUBLISHER = workload("publisher")


def policy_files(suffix: str) -> dict[str, str]:
    """Policy name → text: ``policies/penguins/change.rego`` is ``penguins/change``."""
    files = sorted(POLICIES.rglob(f"*.{suffix}"))
    return {file.relative_to(POLICIES).with_suffix("").as_posix(): file.read_text("utf-8") for file in files}


REGO = RegoLocalEngine(policy_files("rego"))
CEDAR = CedarLocalEngine(policy_files("cedar"))


def set_up(audit: Any = None) -> None:
    """What an operator decides; in production this stands in the file that KEST_CONFIG names."""
    configure(
        engine=REGO,
        identity=CURATOR,
        enterprise_policies=["org/own_workloads"],
        platform_policies=["platform/ticket"],
        deviations=[
            {
                "policy": "platform/ticket",
                "tier": "platform",
                "scope": "load_penguins",
                "reason": "the nightly import has no ticket",
                "approver": "data-office@penguins.example",
            }
        ],
        audit=audit,
    )


@kest_verified("penguins/collect", identity=INGEST, source_type="third_party_api", added_taints=["unchecked"])
def load_penguins() -> list[Record]:
    """The records of Palmer Station, as the package palmerpenguins ships them; what is missing there is None here."""
    file = distribution("palmerpenguins").locate_file("palmerpenguins/data/penguins.csv")
    with Path(str(file)).open(encoding="utf-8", newline="") as lines:
        return [
            {name: None if text == "NA" else float(text) if name in MEASURES else text for name, text in row.items()}
            for row in csv.DictReader(lines)
        ]


@kest_verified(
    "penguins/collect",
    identity=PORTAL,
    source_type="user_input",
    added_taints=["free-text", "unchecked"],
    user=lambda author: author,
    task=TICKET,
    classification="data",
)
def read_request(text: str, author: str) -> Record:
    """What somebody typed into the portal, parsed and nothing more."""
    request = json.loads(text)
    if not isinstance(request, dict):
        raise ValueError("a request is an object")
    return request


@kest_verified("penguins/change", task=TICKET)
def select_records(penguins: list[Record], request: Record) -> list[Record]:
    """The records that were asked for."""
    species = request.get("species")
    return [penguin for penguin in penguins if species is None or penguin["species"] in species]


@kest_verified(
    "penguins/collect",
    identity=ASSISTANT,
    source_type="llm",
    added_taints=["model-output"],
    task=TICKET,
    agent="sex-guesser/1",
)
def suggest_sex(records: list[Record]) -> list[tuple[int, str]]:
    """A model's opinion: for each penguin of unknown sex, that of its species whose mean body mass is closest."""
    suggestions = []
    for index, penguin in enumerate(records):
        mass = penguin["body_mass_g"]
        if penguin["sex"] is None and mass is not None:
            distance = {sex: abs(mass - _mean_mass(records, penguin["species"], sex)) for sex in ("female", "male")}
            suggestions.append((index, min(distance, key=distance.__getitem__)))
    return suggestions


def _mean_mass(records: list[Record], species: str, sex: str) -> float:
    return mean(
        float(p["body_mass_g"]) for p in records if p["species"] == species and p["sex"] == sex and p["body_mass_g"]
    )


@kest_verified("penguins/change", task=TICKET)
def fill_in_sex(records: list[Record], suggestions: list[tuple[int, str]]) -> None:
    """Write a model's opinion into the data. Policy does not let this happen."""
    for index, sex in suggestions:
        records[index]["sex"] = sex


@kest_verified(
    ["penguins/change", "penguins/sanitise"],
    trust_override=90,
    removed_taints=["free-text", "unchecked"],
    task=TICKET,
    classification="sanitizer",
)
def sanitise(records: list[Record], request: Record) -> tuple[list[Record], Record]:
    """Complete records within plausible ranges; of the request only what is on the list, and nothing free-form."""
    checked = [
        penguin
        for penguin in records
        if all(penguin[group] is not None for group in GROUPS)
        and all(penguin[name] is not None and low <= penguin[name] <= high for name, (low, high) in MEASURES.items())
    ]
    measure, groups = request.get("measure"), request.get("by")
    if measure not in MEASURES or not isinstance(groups, list) or not groups or not set(groups) <= set(GROUPS):
        raise ValueError("the request asks for something that is not on offer")
    return checked, {"measure": measure, "by": groups}


@kest_verified("penguins/change", task=TICKET)
def summarise(records: list[Record], request: Record) -> list[Record]:
    """Number and mean of the measure in each group."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for penguin in records:
        groups.setdefault(tuple(penguin[g] for g in request["by"]), []).append(penguin[request["measure"]])
    return [
        {**dict(zip(request["by"], key, strict=True)), "penguins": len(values), "mean": round(mean(values), 1)}
        for key, values in sorted(groups.items())
    ]


@kest_verified("penguins/export", engine=CEDAR, identity=PUBLISHER, resource_id="report.json", task=TICKET)
def export_report(report: Any, file: Path) -> None:
    """Publish: the step that needs trust of at least 80 and no taint."""
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

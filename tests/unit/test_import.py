"""Importing Kest is cheap: optional stacks load when they are first used."""

from __future__ import annotations

import sys
from typing import Any

import pytest

HEAVY = (
    "httpx", "opentelemetry", "cedarpy", "regopy", "regorus", "boto3", "botocore", "cryptography", "jwt", "spiffe", "redis",
    "asyncio", "numpy", "pandas", "pyarrow", "pydantic", "concurrent.futures",
)  # fmt: skip


def loaded(run_python: Any, code: str) -> set[str]:
    done = run_python(f"import sys\n{code}\nprint('\\n'.join(sys.modules))")
    return {name for name in HEAVY if name in done.stdout.split("\n")}


@pytest.mark.parametrize(
    "code", ["import kest", "import kest.core", "import kest.errors", "from kest import _kestcore"]
)
def test_import_loads_nothing_optional(code: str, run_python: Any) -> None:
    assert loaded(run_python, code) == set()


def test_import_kest_does_not_even_load_the_core(run_python: Any) -> None:
    done = run_python("import sys, kest\nprint(kest.__version__, 'kest.core' in sys.modules)")
    assert done.stdout == "0.3.0 False\n"


def test_configuring_and_calling_loads_no_optional_stack(run_python: Any) -> None:
    used = loaded(
        run_python,
        "from kest.core import *\n"
        "configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())\n"
        "kest_verified('p')(lambda: 1)()\n"
        "from kest.core.context import get_current_passport\n"
        "PassportVerifier.verify(get_current_passport(), {})if 0 else BaggageManager.pack(get_current_passport())",
    )
    assert used <= {"asyncio", "concurrent.futures"}


def test_import_time(run_python: Any) -> None:
    done = run_python(
        "import time\n"
        "best = 1e9\n"
        "start = time.perf_counter()\n"
        "import kest.core\n"
        "kest.core.kest_verified, kest.core.configure\n"
        "print(time.perf_counter() - start)\n"
    )
    assert float(done.stdout) < 1.0  # the benchmark has the real bound; this one only catches a stack that slipped in


@pytest.mark.parametrize(
    ("module", "expression", "extra"),
    [
        ("cedarpy", "CedarLocalEngine(policies=['permit(principal,action,resource);'])", "cedar"),
        ("boto3", "AVPPolicyEngine('ps', region='eu-west-1').evaluate('i', ['p'], {'identity': 'w'})", "aws"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(module: str, expression: str, extra: str, run_python: Any) -> None:
    run_python(
        f"import sys; sys.modules[{module!r}] = None\n"
        "from kest.core import *\n"
        "from kest.errors import MissingExtraError\n"
        "try:\n"
        f"    {expression}\n"
        "except MissingExtraError as error:\n"
        f"    assert 'kest[{extra}]' in str(error), error\n"
        "    assert isinstance(error, ImportError)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )


def test_rego_without_a_backend_says_how_to_install_one(run_python: Any) -> None:
    run_python(
        "import sys; sys.modules['regopy'] = sys.modules['lakera_regorus'] = None\n"
        "from kest.core import RegoLocalEngine\n"
        "from kest.errors import MissingExtraError\n"
        "try:\n"
        "    RegoLocalEngine(policies={'a': 'package a\\ndefault allow = true'})\n"
        "except MissingExtraError as error:\n"
        "    assert 'kest[rego]' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )


def test_star_import_and_dir(run_python: Any) -> None:
    run_python(
        "import kest, kest.core\n"
        "from kest.core import *\n"
        "assert callable(kest_verified) and callable(version)\n"
        "for name in kest.core.__all__:\n"
        "    assert getattr(kest, name) is getattr(kest.core, name), name\n"
        "    assert name in dir(kest) and name in dir(kest.core)\n"
        "try: kest.nothing_like_this\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no error')\n"
    )


def test_the_version_is_one() -> None:
    import kest
    from kest import _kestcore
    from kest.core import version

    assert version() == kest.__version__ == _kestcore.__version__ == "0.3.0"
    assert sys.version_info >= (3, 10)

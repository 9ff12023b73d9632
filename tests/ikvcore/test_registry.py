"""Plugins that were found: whether they are what they say (C10), and what applications may require of them (C9).

Each test lays distributions out as pip does, for a process of its own; test_discovery installs some with pip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from ikvcore import errors

UNDER_TEST = Path(errors.__file__).parent.parent

BACKEND = """
    from dataclasses import dataclass
    from ikvcore.hookspecs import hookimpl
    from ikvcore.models import BackendInfo, Durability, Sharing

    @dataclass(frozen=True, kw_only=True)
    class Options:
        durability: str = "{durability}"

    @hookimpl
    def ikv_backend_info():
        return BackendInfo(
            name="{name}", api_version={api}, summary="", options=Options, durability=Durability.parse("{durability}"),
            sharing=Sharing.parse("{sharing}"), capabilities=frozenset({capabilities}), max_value_bytes={max_value},
        )
"""
OPEN_BACKEND = """
    @hookimpl
    def ikv_open_backend(context):
        return ("{name}", context)
"""
TRANSPORT = """
    from dataclasses import dataclass
    from ikvcore.hookspecs import hookimpl
    from ikvcore.models import Durability, TransportInfo

    @dataclass(frozen=True, kw_only=True)
    class TransportOptions:
        pass

    @hookimpl
    def ikv_transport_info():
        return TransportInfo(
            name="{name}", api_version={api}, summary="", options=TransportOptions, process_shared={shared},
            durability=Durability.parse("{durability}"), capabilities=frozenset({capabilities}),
        )

    @hookimpl
    def ikv_open_transport(context):
        return ("transport {name}", context)
"""
DEFAULTS = {
    "name": "x",
    "api": 1,
    "durability": "none",
    "shared": False,
    "sharing": "one-process",
    "capabilities": [],
    "max_value": None,
}
PRELUDE = """
    import sys
    from ikvcore._registry import *
    from ikvcore.clientoptions import Requirements as Wanted
    from ikvcore.errors import *

    def failure(function, *arguments):
        try:
            function(*arguments)
        except IKVError as exc:
            return f"{type(exc).__name__}: {exc}"
        return "no error"
"""


def source(*parts: str, **values: object) -> str:
    """A plugin's module from the templates above."""
    return "".join(textwrap.dedent(part) for part in parts).format(**{**DEFAULTS, **values})


class Site:
    """A directory of installed distributions, laid out as pip lays them out."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def module(self, name: str, text: str) -> None:
        (self.directory / f"{name}.py").write_text(text)

    def distribution(
        self, name: str, entry_points: str = "", *, version: str = "1.0", metadata: Iterable[str] = ()
    ) -> Path:
        """`entry_points` as "backends: name = module" lines, where the group's prefix is left out."""
        info = self.directory / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        headers = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
        (info / "METADATA").write_text("\n".join(headers) + "\n")
        lines = (line.split(":", 1) for line in entry_points.splitlines())
        (info / "entry_points.txt").write_text("".join(f"[ikv_{group}]\n{entry.strip()}\n" for group, entry in lines))
        return info

    def backend(self, distribution: str, name: str, **values: object) -> None:
        """A distribution that brings one working backend."""
        module = f"{distribution.replace('-', '_')}_{name}"
        self.module(module, source(BACKEND, OPEN_BACKEND, **{"name": name, **values}))
        self.distribution(distribution, f"backends: {name} = {module}")


class Sites:
    """What one process finds on its path, first site first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sites: list[Site] = []

    def add(self) -> Site:
        site = Site(self._root / f"site{len(self._sites)}")
        self._sites.append(site)
        return site

    def run(self, code: str) -> list[str]:
        """The lines that `code` prints; warnings are errors there too."""
        path = os.pathsep.join([*(str(site.directory) for site in self._sites), str(UNDER_TEST)])
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=self._root,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


@pytest.fixture
def site(sites: Sites) -> Site:
    return sites.add()


# -- what answers ------------------------------------------------------------------------------


def test_two_backends_loaded_in_one_process_each_answer_for_themselves(sites: Sites, site: Site) -> None:
    site.backend("dist-a", "alpha")
    site.backend("dist-b", "beta")
    assert sites.run("""
        alpha, beta = load_backend("alpha"), load_backend("beta")
        print(alpha.hook.ikv_open_backend(context=1), beta.hook.ikv_open_backend(context=2))
        print(alpha.hook.ikv_backend_info().name, beta.hook.ikv_backend_info().name, alpha.info.name, beta.info.name)
        print(beta.name, beta.distribution, beta.version, load_backend("alpha") is alpha)
        """) == ["('alpha', 1) ('beta', 2)", "alpha beta alpha beta", "beta dist-b 1.0 True"]


def test_a_call_begun_before_another_plugin_is_loaded_still_reaches_its_own(sites: Sites, site: Site) -> None:
    site.backend("dist-a", "alpha")
    site.backend("dist-b", "beta")
    assert sites.run("""
        opens = load_backend("alpha").hook.ikv_open_backend
        load_backend("beta")
        print(opens(context=1))
        """) == ["('alpha', 1)"]


def test_a_backend_and_a_transport_of_one_name_do_not_meet(sites: Sites, site: Site) -> None:
    site.module("both", source(BACKEND, OPEN_BACKEND, TRANSPORT, name="twin"))
    site.distribution("dist-a", "backends: twin = both\ntransports: twin = both")
    assert sites.run("""
        print(load_backend("twin").hook.ikv_open_backend(context=1))
        print(load_transport("twin").hook.ikv_open_transport(context=2))
        print(failure(load_transport, "x").partition(";")[0])
        """) == [
        "('twin', 1)",
        "('transport twin', 2)",
        "PluginNotFoundError: no transport named 'x' is installed",
    ]


def test_two_names_may_lead_to_one_module(sites: Sites, site: Site) -> None:
    site.module("one", source(BACKEND, OPEN_BACKEND, name="one"))
    site.distribution("dist-a", "backends: one = one\nbackends: uno = one")
    assert sites.run("""
        print([load_backend(name).hook.ikv_open_backend(context=name) for name in ("one", "uno")])
        """) == ["[('one', 'one'), ('one', 'uno')]"]


def test_a_plugin_that_names_fewer_arguments_than_its_hook_works(sites: Sites, site: Site) -> None:
    older = "\n@hookimpl\ndef ikv_open_backend():\n    return 'opened without arguments'\n"
    site.module("older", source(BACKEND, older))
    site.distribution("dist-a", "backends: older = older")
    assert sites.run("print(load_backend('older').hook.ikv_open_backend(context=1))") == ["opened without arguments"]


def test_a_hook_marked_as_optional_may_be_unknown_here(sites: Sites, site: Site) -> None:
    site.module("ahead", source(BACKEND, OPEN_BACKEND, "\n@hookimpl(optionalhook=True)\ndef ikv_later(): pass\n"))
    site.distribution("dist-a", "backends: ahead = ahead")
    assert sites.run("print(load_backend('ahead').hook.ikv_open_backend(context=1))") == ["('x', 1)"]


def test_an_object_within_a_module_can_be_the_plugin(sites: Sites, site: Site) -> None:
    site.module(
        "holder",
        "from inner import ikv_backend_info, ikv_open_backend\n"
        "class Plugin:\n    ikv_backend_info = staticmethod(ikv_backend_info)\n"
        "    ikv_open_backend = staticmethod(ikv_open_backend)\ninstance = Plugin()\n",
    )
    site.module("inner", source(BACKEND, OPEN_BACKEND))
    site.distribution("dist-a", "backends: object = holder:instance")
    assert sites.run("print(load_backend('object').hook.ikv_open_backend(context=1))") == ["('x', 1)"]


def test_the_plugins_own_error_comes_through_untouched(sites: Sites, site: Site) -> None:
    fails = "\n@hookimpl\ndef ikv_open_backend(context):\n    raise OSError('no such device')\n"
    site.module("fails", source(BACKEND, fails))
    site.distribution("dist-a", "backends: fails = fails")
    assert sites.run("""
        try:
            load_backend("fails").hook.ikv_open_backend(context=1)
        except OSError as exc:
            print(repr(exc))
        """) == ["OSError('no such device')"]


# -- listing -----------------------------------------------------------------------------------


def test_a_listing_shows_everything_and_imports_nothing(sites: Sites, site: Site) -> None:
    site.backend("dist-a", "alpha")
    site.module("broken", "raise RuntimeError")
    site.distribution("dist-b", "backends: beta = broken\nbackends: alpha = broken", version="2.5")
    assert sites.run("""
        for candidate in installed("backend"):
            if candidate.distribution != "ikvcore":
                print(candidate.name, candidate.distribution, candidate.version, candidate.entry_point.value)
        print([name for name in ("dist_a_alpha", "broken", "pluggy", "lmdb") if name in sys.modules])
        """) == ["alpha dist-a 1.0 dist_a_alpha", "alpha dist-b 2.5 broken", "beta dist-b 2.5 broken", "[]"]


def test_refresh_finds_what_was_installed_meanwhile(sites: Sites, site: Site) -> None:
    site.backend("dist-a", "alpha")
    later = sites.add()
    later.backend("dist-b", "beta")
    assert sites.run("""
        late = sys.path.pop(2)
        assert late.endswith("site1"), sys.path
        print(failure(load_backend, "beta").partition(":")[0])
        sys.path.append(late)
        print(failure(load_backend, "beta").partition(":")[0])
        refresh()
        print(load_backend("beta").hook.ikv_open_backend(context=1))
        """) == ["PluginNotFoundError", "PluginNotFoundError", "('beta', 1)"]


# -- not installed -----------------------------------------------------------------------------


def test_an_extra_of_that_name_gets_the_pip_command(sites: Sites, site: Site) -> None:
    site.distribution("ikvcore", metadata=["Provides-Extra: rocks-db"])
    [line] = sites.run("print(failure(load_backend, 'rocks_db'))")
    assert line.endswith("install it with: pip install 'ikvcore[rocks-db]'")


@pytest.mark.parametrize("when", ["import", "open"])
def test_a_plugin_whose_extra_is_missing_is_not_installed_rather_than_broken(
    sites: Sites, site: Site, when: str
) -> None:
    late = "\n@hookimpl\ndef ikv_open_backend(context):\n    import engine_driver\n"
    site.module("engine", source(BACKEND, late) if when == "open" else "import engine_driver")
    site.backend("dist-b", "engin")
    site.distribution(
        "Dist.A",
        "backends: engine = engine",
        metadata=["Provides-Extra: engine", "Requires-Dist: Engine.Driver<2,>=1; extra == 'engine'"],
    )
    code = """
        print(failure(lambda: load_backend("engine").hook.ikv_open_backend(context=1)))
        print([missing_requirements(each) for each in installed("backend") if each.name == "engine"])
        """
    absent, missing = sites.run(code)
    assert absent.startswith("PluginNotFoundError: no backend named 'engine' is installed (did you mean 'engin'?)")
    assert absent.endswith("install it with: pip install 'Dist.A[engine]'")
    assert missing == "[['Engine.Driver']]"
    site.distribution("engine-driver")  # it is installed, but cannot be imported
    broken, missing = sites.run(code)
    assert broken.startswith(
        "PluginBrokenError: backend 'engine' of Dist.A 1.0 is installed but broken: ModuleNotFound"
    )
    assert missing == "[[]]"


# -- broken ------------------------------------------------------------------------------------

NO_OPEN = source(BACKEND)
BROKEN: Mapping[str, tuple[str, str]] = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "syntax": ("def", "SyntaxError: "),
    "imports_nothing": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no_hooks": ("", "broken has no function marked with hookimpl"),
    "no_info": (
        "from ikvcore.hookspecs import hookimpl\n@hookimpl\ndef ikv_open_backend(context): pass\n",
        "broken does not implement ikv_backend_info",
    ),
    "no_open": (NO_OPEN, "broken does not implement ikv_open_backend"),
    "info_raises": (
        "from ikvcore.hookspecs import hookimpl\n@hookimpl\ndef ikv_backend_info(): return 1 / 0\n",
        "ZeroDivisionError: division by zero",
    ),
    "leaves": ("raise SystemExit(5)", "importing it ends the program, with exit code 5"),
    "info_leaves": (
        "from ikvcore.hookspecs import hookimpl\n@hookimpl\ndef ikv_backend_info(): raise SystemExit('no licence')\n",
        "its hook ikv_backend_info ends the program, with exit code 'no licence'",
    ),
    "info_is_none": (
        "from ikvcore.hookspecs import hookimpl\n@hookimpl\ndef ikv_backend_info(): pass\n",
        "its hook ikv_backend_info returned None",
    ),
    "info_is_a_dict": (
        "from ikvcore.hookspecs import hookimpl\n@hookimpl\ndef ikv_backend_info(): return {'a': 1}\n",
        "ikv_backend_info returned {'a': 1}, not a BackendInfo",
    ),
    "options_are_no_dataclass": (
        source(BACKEND, OPEN_BACKEND).replace("options=Options", "options=dict"),
        "the options in its info, <class 'dict'>, are not a dataclass",
    ),
    "unknown_hook": (
        source(BACKEND, OPEN_BACKEND, "\n@hookimpl\ndef ikv_open_backnd(context): pass\n"),
        "it implements unknown hook 'ikv_open_backnd' (did you mean 'ikv_open_backend'",
    ),
    "unknown_argument": (
        source(BACKEND, "\n@hookimpl\ndef ikv_open_backend(contxt): pass\n"),
        "PluginValidationError: Plugin 'dist-a:broken' for hook 'ikv_open_backend'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_named_with_its_distribution_version_and_cause(sites: Sites, site: Site, fault: str) -> None:
    text, cause = BROKEN[fault]
    site.module("broken", text)
    site.distribution("dist-a", "backends: broken = broken", version="1.2")
    first, again = sites.run("""
        for _ in range(2):
            print(failure(load_backend, "broken").replace("\\n", " "))
        """)
    assert first.startswith("PluginBrokenError: backend 'broken' of dist-a 1.2 is installed but broken: "), first
    assert cause in first
    assert again == first


def test_a_transport_that_declares_provisioning_must_have_its_hook(sites: Sites, site: Site) -> None:
    site.module("lax", source(TRANSPORT, capabilities=["Provisioning"]))
    site.distribution("dist-a", "transports: lax = lax")
    [line] = sites.run("print(failure(load_transport, 'lax'))")
    assert line.endswith("broken: lax does not implement ikv_provisioning")


def test_a_hook_that_would_end_the_program_is_broken(sites: Sites, site: Site) -> None:
    """Whoever opens a client, or is told which plugins would do, goes on."""
    site.module("leaves", source(BACKEND, "\n@hookimpl\ndef ikv_open_backend(context): raise SystemExit\n"))
    site.module("leaver", "import sys; sys.exit(1)")
    site.distribution("dist-a", "backends: leaves = leaves\nbackends: leaver = leaver")
    opened, lacking = sites.run("""
        leaves = load_backend("leaves")
        print(failure(lambda: leaves.hook.ikv_open_backend(context=1)))
        print(failure(check_requirements, [(leaves, None)], Wanted(levels={"durability": "power-loss"})))
        """)
    assert opened.endswith("is installed but broken: its hook ikv_open_backend ends the program, with exit code None")
    assert "backend 'lmdb'" in lacking
    assert "leaver" not in lacking


def test_a_hook_that_opens_nothing_is_broken(sites: Sites, site: Site) -> None:
    site.module("empty", source(BACKEND, "\n@hookimpl\ndef ikv_open_backend(context): pass\n"))
    site.distribution("dist-a", "backends: empty = empty")
    [line] = sites.run("print(failure(lambda: load_backend('empty').hook.ikv_open_backend(context=1)))")
    assert line.endswith("broken: its hook ikv_open_backend returned None")


def test_a_broken_neighbour_disturbs_neither_a_listing_nor_a_load(sites: Sites, site: Site) -> None:
    site.backend("dist-a", "alpha")
    for name, (text, _) in BROKEN.items():
        site.module(name, text)
        site.distribution(f"dist-{name}", f"backends: {name} = {name}")
    nameless = site.distribution("dist-b", "backends: nameless = nowhere")
    (nameless / "METADATA").unlink()
    garbled = site.distribution("dist-c")
    (garbled / "entry_points.txt").write_text("[ikv_backends]\nthis is no entry point\n")
    undecodable = site.distribution("dist-d")
    (undecodable / "entry_points.txt").write_bytes(b"[ikv_backends]\n\xff = nowhere\n")
    *answers, listed = sites.run("""
        import logging
        logging.disable()
        for candidate in installed("backend"):
            if candidate.distribution.startswith("dist-") and candidate.name != "alpha":
                failure(load_backend, candidate.name)
                print(load_backend("alpha").hook.ikv_open_backend(context=candidate.name)[0])
                refresh()
        print(*(candidate.name for candidate in installed("backend") if candidate.distribution != "ikvcore"))
        """)
    assert answers == ["alpha"] * len(BROKEN)
    assert listed.split() == sorted(["alpha", *BROKEN])


def test_a_distribution_that_cannot_be_read_is_logged(sites: Sites, site: Site) -> None:
    garbled = site.distribution("dist-c")
    (garbled / "entry_points.txt").write_text("[ikv_backends]\nthis is no entry point\n")
    [line] = sites.run("""
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
        installed("backend")
        """)
    assert line.startswith(f"ikvcore._discovery WARNING passed over a distribution in {site.directory} ")


# -- other versions ----------------------------------------------------------------------------

NEWER: Mapping[str, str] = {
    "nothing else": source(BACKEND, OPEN_BACKEND, api=2),
    "a hook's new argument": source(BACKEND, "\n@hookimpl\ndef ikv_open_backend(context, budget): pass\n", api=2),
    "a new hook": source(BACKEND, "\n@hookimpl\ndef ikv_close_backend(context): pass\n", api=2),
    "no hook that there was": source(BACKEND, api=2),
}


@pytest.mark.parametrize("difference", NEWER)
def test_a_plugin_for_another_api_version_is_told_with_both_versions(sites: Sites, site: Site, difference: str) -> None:
    site.module("newer", NEWER[difference])
    site.distribution("dist-a", "backends: newer = newer")
    [line] = sites.run("print(failure(load_backend, 'newer'))")
    assert line == (
        "PluginVersionError: backend 'newer' of dist-a speaks plugin API version 2, this ikvcore speaks 1; "
        "install a dist-a made for version 1"
    )


# -- clashes -----------------------------------------------------------------------------------


def test_a_built_in_name_can_be_claimed_and_chosen_too(sites: Sites, site: Site) -> None:
    site.distribution("dist-a", "backends: memory = nowhere")
    [line] = sites.run("print(failure(load_backend, 'memory'))")
    assert line.startswith("PluginClashError: backend 'memory' is claimed by dist-a and by ikvcore; choose one by ")


def test_metadata_found_twice_of_one_distribution_is_no_clash(sites: Sites, site: Site) -> None:
    site.module("alpha", source(BACKEND, OPEN_BACKEND, name="alpha"))
    site.distribution("Dist.A", "backends: alpha = alpha")
    site.distribution("dist-a", "backends: alpha = alpha", version="0.9")
    sites.add().distribution("dist_a", "backends: alpha = alpha", version="0.8")
    assert sites.run("""
        print(load_backend("alpha").hook.ikv_open_backend(context=1))
        print(len([candidate for candidate in installed("backend") if candidate.name == "alpha"]))
        """) == ["('alpha', 1)", "1"]


# -- requirements ------------------------------------------------------------------------------


@pytest.fixture
def requirements_site(site: Site) -> Site:
    site.backend("dist-a", "plain")
    site.backend(
        "dist-b", "able", durability="power-loss", sharing="followers", capabilities=["ColumnarRead"], max_value=100
    )
    site.module("log", source(TRANSPORT, name="log", durability="power-loss", shared=True, capabilities=["Trim"]))
    site.module("broken", "raise RuntimeError")
    site.distribution("dist-c", "transports: log = log\nbackends: broken = broken")
    return site


@pytest.mark.usefixtures("requirements_site")
@pytest.mark.parametrize(
    ("wanted", "lacking"),
    [
        ('Wanted(levels={"durability": "process-crash"})', "durability=process-crash"),
        ('Wanted(levels={"process_shared": True})', "process_shared"),
        ('Wanted(levels={"sharing": "followers"})', "sharing=followers"),
        ('Wanted(capabilities=frozenset({"process_shared"}))', "process_shared"),
        (
            'Wanted(capabilities=frozenset({"process_shared"}), levels={"durability": "power-loss"})',
            "process_shared, durability=power-loss",
        ),
    ],
)
def test_a_property_that_is_required_binds_every_plugin_of_the_client(sites: Sites, wanted: str, lacking: str) -> None:
    refused, taken = sites.run(f"""
        log = load_transport("log")
        print(failure(check_requirements, [(load_backend("plain"), None), (log, None)], {wanted}))
        print(failure(check_requirements, [(load_backend("able"), None), (log, None)], {wanted}))
        """)
    head = f"RequirementError: backend 'plain' lacks what the application requires ({lacking}); these have it: "
    assert refused.startswith(head)
    assert "backend 'able'" in refused
    assert taken == "no error"


@pytest.mark.usefixtures("requirements_site")
def test_a_capability_that_is_required_may_come_from_either_plugin(sites: Sites) -> None:
    refused, taken, impossible, misspelt = sites.run("""
        plain, able, log = load_backend("plain"), load_backend("able"), load_transport("log")
        both = Wanted(capabilities=frozenset({"ColumnarRead", "Trim"}))
        print(failure(check_requirements, [(plain, None), (log, None)], both))
        print(failure(check_requirements, [(able, None), (log, None)], both))
        print(failure(check_requirements, [(able, None), (log, None)], Wanted(capabilities=frozenset({"Fly"}))))
        print(failure(check_requirements, [(able, None), (log, None)], Wanted(capabilities=frozenset({"Qurey"}))))
        """)
    assert refused == (
        "RequirementError: backend 'plain' with transport 'log' lacks what the application requires (ColumnarRead); "
        "these have it: backend 'able'"
    )
    assert taken == "no error"
    assert impossible.endswith("(Fly); no installed plugin has it")
    assert misspelt.endswith("(Qurey); no installed plugin has it (did you mean 'Query'?)")


@pytest.mark.usefixtures("requirements_site")
def test_levels_are_lower_bounds_that_options_can_move(sites: Sites) -> None:
    assert sites.run("""
        able = load_backend("able")
        weak = build_options("backend 'able'", able.info.options, {"durability": "none"})
        def check(options, **levels):
            print(failure(check_requirements, [(able, options)], Wanted(levels=levels)).partition(";")[0])
        check(None, durability="power-loss", max_value_bytes=100, max_key_bytes=10**9)
        check(weak, durability="none")
        check(weak, durability="power-loss")
        check(None, max_value_bytes=101)
        check(None, sharing="one-process", process_shared=True)
        check(None, sharing="shared")
        print("backend 'able' with its default options" in failure(
            check_requirements, [(able, weak)], Wanted(levels={"durability": "power-loss"})))
        """) == [
        "no error",
        "no error",
        "RequirementError: backend 'able' lacks what the application requires (durability=power-loss)",
        "RequirementError: backend 'able' lacks what the application requires (max_value_bytes=101)",
        "no error",
        "RequirementError: backend 'able' lacks what the application requires (sharing=shared)",
        "True",
    ]


@pytest.mark.usefixtures("requirements_site")
def test_clients_are_refused_where_they_are_made_with_what_would_do(sites: Sites) -> None:
    """A writer opens no backend: its levels bind the transport alone, capabilities may be its readers' backend's."""
    lines = sites.run("""
        from ikvcore.clientoptions import ClientOptionsBuilder
        from ikvcore.factory import create_new_reader, create_new_writer
        def made(create, backend, *capabilities, **levels):
            builder = ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
            builder.with_mount_directory("mount").with_backend(backend).with_transport("log")
            print(failure(create, builder.requires(*capabilities, **levels).build()))
        made(create_new_reader, "able", "ColumnarRead", "Trim", durability="power-loss", process_shared=True)
        made(create_new_reader, "plain", "ColumnarRead", max_value_bytes=100)
        made(create_new_reader, "able", max_value_bytes=101)
        made(create_new_reader, "plain", durability="power-loss")
        made(create_new_writer, "able", "ColumnarRead", "Trim", durability="power-loss", max_value_bytes=101)
        made(create_new_writer, "plain", "ColumnarRead")
        """)
    parts = (
        line.removeprefix("RequirementError: ").partition(" lacks what the application requires ") for line in lines
    )
    refused = [(who, rest) for who, _, rest in parts]
    both = "backend 'plain' with transport 'log'"
    assert [who for who, _ in refused] == ["no error", both, "backend 'able'", "backend 'plain'", "no error", both]
    assert refused[1][1] == refused[5][1] == "(ColumnarRead); these have it: backend 'able'"
    assert refused[2][1].startswith("(max_value_bytes=101); these have it: ")
    assert "backend 'memory'" in refused[2][1]
    assert refused[3][1].startswith("(durability=power-loss); these have it: backend 'able', ")

"""A real Apache Kafka broker for tests: one node that is broker and controller (KRaft), on free loopback ports.

The official jars come from Maven Central, once, into $XDG_CACHE_HOME/ikvcore/kafka-VERSION. Needs Java 17 and, for the
first time, Maven. By hand:

    python tests/services/kafka_broker.py fetch         get the jars
    python tests/services/kafka_broker.py run DIRECTORY run a broker until Ctrl-C; DIRECTORY/address says where

Nothing but the standard library is imported, so that it also runs without the project's packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
HOW = "apt-get install openjdk-17-jre-headless maven, or set IKV_TEST_KAFKA=host:port of a running broker"
STARTING = 120.0
JAVA = [
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts in half the time, and nothing here runs long
    "-Xshare:auto",
]
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
LOGGING = """\
Configuration:
  Appenders: {Console: {name: err, target: SYSTEM_ERR, PatternLayout: {pattern: "%d %p %c %m%n"}}}
  Loggers: {Root: {level: WARN, AppenderRef: [{ref: err}]}}
"""


class NoBroker(Exception):  # noqa: N818 - a state of the machine, no mistake of anybody's
    """There is no broker to be had here."""


# -- the jars ----------------------------------------------------------------------------------


def cache() -> Path:
    """Where the jars are kept, outside the tree."""
    (version,) = re.findall(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ikvcore" / f"kafka-{version}"


@functools.cache
def _why_not(directory: Path) -> str | None:
    """Fetch the jars; why they cannot be had, which is found out once, since it may take long."""
    try:
        _make_sure(directory)
    except NoBroker as exc:
        return str(exc)
    return None


def fetch(directory: Path) -> Path:
    """The directory of the jars; they are fetched where they are not there. Raises NoBroker."""
    why_not = _why_not(directory)
    if why_not is not None:
        raise NoBroker(why_not)
    return directory / "jars"


def _make_sure(directory: Path) -> None:
    if shutil.which("java") is None:
        raise NoBroker("there is no java")
    done = directory / "pom.xml"
    if not _is_current(done):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of tests come at once
                if not _is_current(done):
                    _fetch(directory)
                    shutil.copy(POM, done)
        except OSError as exc:
            raise NoBroker(f"the jars cannot be kept in {directory}: {exc}") from exc


def _is_current(done: Path) -> bool:
    return done.exists() and done.read_bytes() == POM.read_bytes()


def _fetch(directory: Path) -> None:
    if shutil.which("mvn") is None:
        raise NoBroker("there is no mvn to fetch its jars with")
    jars = directory / "jars"
    shutil.rmtree(jars, ignore_errors=True)
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    try:
        fetched = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=540
        )
    except subprocess.TimeoutExpired as exc:
        raise NoBroker("mvn did not fetch its jars within 9 minutes") from exc
    if fetched.returncode != 0:
        raise NoBroker(f"mvn could not fetch its jars: {fetched.stdout.strip()[-500:]}")


# -- a broker ----------------------------------------------------------------------------------


class Broker:
    """A broker's process, with its data in `directory`. Not thread-safe."""

    def __init__(
        self,
        jars: Path,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        ports: tuple[int, int] | None = None,
    ) -> None:
        """`ports`: for clients and for controllers; free ones by default."""
        self._jars = jars
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        port, controller = ports or free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self.settings = _settings(port, controller, directory / "data") | dict(settings or {})
        """server.properties, as it is when it starts."""

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; its data is that of the last time."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it, and don't wait."""
        fresh = not (self._directory / "data").exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        properties = self._directory / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        (self._directory / "log4j2.yaml").write_text(LOGGING)
        if fresh:
            self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(properties)).wait(STARTING)
        self._process = self._java("kafka.Kafka", str(properties))

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def tool(self, name: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run one of Kafka's own tools, a Java class, to its end."""
        command = ["java", *JAVA, "-cp", f"{self._jars}/*", name, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=STARTING)

    def complaints(self) -> str:
        """The end of what it wrote."""
        with contextlib.suppress(OSError):
            return (self._directory / "out").read_text()[-3000:]
        return ""

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["java", *JAVA, f"-Dlog4j2.configurationFile={self._directory / 'log4j2.yaml'}"]
        with (self._directory / "out").open("ab") as out:
            return subprocess.Popen(
                [*command, "-cp", f"{self._jars}/*", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a terminal's Ctrl-C is for the tests, which end it then
            )

    def wait(self) -> None:
        """Until it answers. Raises NoBroker."""
        assert self._process is not None
        host, port = self.address.split(":")
        deadline = time.monotonic() + STARTING
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NoBroker(f"the broker did not start: {self.complaints()}")
            time.sleep(0.05)


class Cluster:
    """Three brokers, each of which is a controller too, and what every partition's copies on all of them make safe: a
    write is acknowledged when two have it. Not thread-safe.
    """

    def __init__(self, jars: Path, directory: Path) -> None:
        ports = free_ports(6)
        pairs = list(zip(ports[:3], ports[3:], strict=True))
        settings = {
            "controller.quorum.voters": ",".join(f"{node}@127.0.0.1:{each}" for node, (_, each) in enumerate(pairs, 1)),
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
        }
        self.nodes = {
            node: Broker(jars, directory / f"node-{node}", settings | {"node.id": str(node)}, ports=each)
            for node, each in enumerate(pairs, 1)
        }
        """By their ids."""
        self.address = ",".join(each.address for each in self.nodes.values())

    def start(self) -> None:
        """Start all, and wait until they answer."""
        for each in self.nodes.values():
            each.launch()
        for each in self.nodes.values():
            each.wait()

    def kill(self) -> None:
        """kill -9 of all that run."""
        for each in self.nodes.values():
            each.kill()


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _settings(port: int, controller: int, data: Path) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"CLIENTS://127.0.0.1:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        # One that was killed is forgotten soon, and may come back.
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        "log.index.size.max.bytes": "65536",
        "log.retention.check.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


# -- one for all processes of a test run -------------------------------------------------------


def shared(directory: Path, watched: int) -> str:
    """The address of a broker in `directory`; the first who asks starts it. It ends when process `watched` has ended.

    Raises NoBroker.
    """
    jars = fetch(cache())
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        address = directory / "address"
        if not address.exists():
            command = [sys.executable, "-I", __file__, "keep", str(jars), str(directory), str(watched)]
            keeper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
            while not address.exists():
                if keeper.poll() is not None:
                    raise NoBroker(f"the broker did not start; see {directory / 'broker' / 'out'}")
                time.sleep(0.05)
            # It outlives whoever started it, who is not to be told of that as of a child forgotten.
            keeper.returncode = 0
        return address.read_text()


@contextlib.contextmanager
def _running(jars: Path, directory: Path) -> Iterator[Broker]:
    broker = Broker(jars, directory / "broker")
    try:
        broker.start()
        told = directory / "address.new"
        told.write_text(broker.address)
        told.rename(directory / "address")
        yield broker
    finally:
        broker.kill()
        (directory / "address").unlink(missing_ok=True)
        shutil.rmtree(directory / "broker" / "data", ignore_errors=True)


def _keep(jars: Path, directory: Path, watched: int) -> None:
    pid = os.pidfd_open(watched)
    with _running(jars, directory):
        select.select([pid], [], [])


def _run(directory: Path) -> None:
    with _running(fetch(cache()), directory) as broker:
        sys.stdout.write(f"{broker.address}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def main(arguments: list[str]) -> None:
    """See the top."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # and so end the broker too
    match arguments:
        case ["fetch"]:
            fetch(cache())
        case ["run", directory]:
            _run(Path(directory).absolute())
        case ["keep", jars, directory, watched]:
            _keep(Path(jars), Path(directory), int(watched))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NoBroker as exc:
        raise SystemExit(f"no broker: {exc}; {HOW}") from exc

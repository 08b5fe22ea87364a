"""The commands of the device: inspect, agent, record, replay, watch, broker."""

import logging
import platform
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec

from edgernn.errors import EdgernnError, Exit, ending_with
from edgernn.layout import Columns
from edgernn.settings import to_settings, write_atomically
from edgernn_device.address import Access, BrokerAddress, find_credentials
from edgernn_device.logs import FORMATS, failures_as_lines, start_logging
from edgernn_device.shipped import GENERAL, artefact_path
from edgernn_device.signature import is_inline
from edgernn_device.stopping import stop_on_signals
from edgernn_device.topics import DEFAULT_PATTERN, DEFAULT_PREFIX

PATH = click.Path(path_type=Path)


def broker_options(command: Any) -> Any:
    """--broker, --user, --password-file and certificates: the same for every command that
    connects."""
    for option in (
        click.option("--key-file", type=PATH, help="The client certificate's key."),
        click.option("--cert-file", type=PATH, help="A client certificate, if the broker asks."),
        click.option("--ca-file", type=PATH, help="Authority of the broker's certificate."),
        click.option("--password-file", type=PATH, help="Or set EDGERNN_MQTT_PASSWORD."),
        click.option("--user", default="", help="Or mqtt://user@host."),
        click.option(
            "--broker",
            default="mqtt://localhost:1883",
            show_default=True,
            help="Or mqtts://… for TLS.",
        ),
    ):
        command = option(command)
    return command


def trusted_key_option(command: Any) -> Any:
    """--trusted-key: for every command that loads an artefact."""
    return click.option(
        "--trusted-key",
        "trusted_keys",
        multiple=True,
        metavar="KEY",
        help="Refuse an artefact that no such key signed: ed25519:… or a .pub file. May be given "
        "again.",
    )(command)


def _access(
    broker: str,
    user: str,
    password_file: Path | None,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
) -> Access:
    address = BrokerAddress.parse(broker)
    credentials = find_credentials(user or address.user, password_file=password_file)
    return Access(
        address=address,
        credentials=credentials,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
    )


@click.command()
@click.argument("artefact", type=PATH)
@click.option("--json", "is_json", is_flag=True, help="The same for programs, with the whole card.")
@click.option("--svg", type=PATH, help="A picture of its stages and states, into this file.")
@trusted_key_option
def inspect(artefact: Path, is_json: bool, svg: Path | None, trusted_keys: tuple[str, ...]) -> None:
    """Show what an artefact says of itself, and what it is made of; with a trusted key, nothing of
    any other's. ARTEFACT is a file, or general: the one that comes with edgernn."""
    from edgernn_device.anatomy import dissect
    from edgernn_device.engine import Engine
    from edgernn_device.golden import probe
    from edgernn_device.inspect import as_json, as_svg, describe
    from edgernn_device.trust import Trust, admit, read_artefact

    trust = Trust.parse(trusted_keys, base=Path(), where="--trusted-key")
    with ending_with(Exit.ARTEFACT):
        model = read_artefact(artefact_path(str(artefact), Path()), max_bytes=trust.max_bytes)
        binding = probe(admit(model, trust=trust, where=str(artefact)))
        engine = Engine(model, trust=trust, where=str(artefact), binding=binding)
    if svg is not None:
        write_atomically(svg, as_svg(engine.card_of_file).encode())
    if is_json:
        click.echo(as_json(engine, dissect(model)))
    else:
        click.echo(describe(engine, dissect(model), is_checked=bool(trust.keys)))


@click.command()
@click.argument("artefact", type=PATH)
@trusted_key_option
def verify(artefact: Path, trusted_keys: tuple[str, ...]) -> None:
    """Prove on this CPU that an artefact says what it said when it was exported.

    It holds a short stream and what came of it; both are compared in a process of its own. ARTEFACT
    is a file, or general: the one that comes with edgernn.
    """
    from edgernn_device import verify as verifier
    from edgernn_device.trust import Trust, admit, read_artefact

    trust = Trust.parse(trusted_keys, base=Path(), where="--trusted-key")
    with ending_with(Exit.ARTEFACT):
        model = read_artefact(artefact_path(str(artefact), Path()), max_bytes=trust.max_bytes)
        admit(model, trust=trust, where=str(artefact))
        found = verifier.verify(model, where=str(artefact))
        if not found.samples:
            raise EdgernnError(f"{artefact}: {found}; export it anew")
    here = f"({platform.machine()}, onnxruntime {version('onnxruntime')})"
    click.echo(f"{artefact}: {found} {here}")


@click.command()
@click.argument("source", type=PATH, metavar="AGENT.TOML|MODEL.ONNX", required=False)
@click.option(
    "--model", help="An artefact in place of the file's; general: the one that needs no training."
)
@click.option(
    "--channel", "channels", multiple=True, help="Of an artefact that takes any, such as general."
)
@click.option("--period", "period_s", type=float, help="Of such an artefact, in seconds.")
@click.option("--broker", help="Overrides the file's.")
@click.option("--user", help="Overrides the file's. The password: EDGERNN_MQTT_PASSWORD or a file.")
@click.option("--password-file", help="Overrides the file's.")
@click.option("--node", help="Name of this device in topics. Default: its host name.")
@click.option("--subscribe", help=f"Where samples come from. Default: {DEFAULT_PATTERN}")
@click.option("--false-alarms", help='Budget per stream, such as "1/week".')
@click.option("--scores", is_flag=True, help="Publish scores too.")
@click.option(
    "--score-every", "score_every_s", type=float, help="At most one score in this many s."
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="json: one object a line.",
)
@click.option("--check", "is_check", is_flag=True, help="Prove that all is there, start nothing.")
@trusted_key_option
def agent(
    source: Path | None,
    model: str | None,
    channels: tuple[str, ...],
    period_s: float | None,
    broker: str | None,
    user: str | None,
    password_file: str | None,
    node: str | None,
    subscribe: str | None,
    false_alarms: str | None,
    scores: bool,
    score_every_s: float | None,
    log_format: str,
    is_check: bool,
    trusted_keys: tuple[str, ...],
) -> None:
    """Run an artefact over MQTT and publish what it finds, until SIGTERM or Ctrl-C.

    Takes a configuration file (see agent.example.toml), or an artefact and options: without any
    training, --model general with --channel for each channel and --period. SIGHUP reads
    them again; what is wrong with them is said, and the old ones keep running. Ends with 0 when
    stopped, 2 for the file or an option, 3 for the broker, 4 for the artefact, 5 for the folder it
    keeps its state in.
    """
    said: dict[str, dict[str, Any]] = {
        "": {
            "model": None if source is None else _model_from_here(model),
            "node": node,
            "trusted_keys": _from_here(trusted_keys) or None,
        },
        "broker": {
            "address": broker,
            "user": user,
            "password_file": password_file and str(Path(password_file).absolute()),
        },
        "input": {
            "subscribe": subscribe,
            "channels": channels or None,
            "period_s": period_s,
        },
        "output": {"scores": scores or None, "score_every_s": score_every_s},
        "alarm": {"false_alarms": false_alarms},
    }
    if source is None:
        if model is None:
            raise click.UsageError("expected an agent's .toml, an .onnx, or --model")
        source = Path(model)
    elif model is not None and source.suffix != ".toml":
        raise click.UsageError(f"--model {model} is for an agent's .toml; got {source} as well")
    if is_check:
        sys.exit(_check(source, said))
    start_logging(log_format)
    with failures_as_lines(log_format):
        from edgernn_device.agent import Agent
        from edgernn_device.loading import load_engine, make_parts
        from edgernn_device.rehearsal import rehearse
        from edgernn_device.reload import Loaded, Reload

        base, where = _base(source), str(source)

        def load() -> Loaded:
            config = _agent_config(source, said)
            engine = load_engine(config, base=base, where=where)
            make_parts(config, engine, where=where)  # or refuse now, while another still runs
            return Loaded(config, engine)

        reload = Reload(load, rehearse=partial(rehearse, base=base))
        with stop_on_signals() as stop, reload.on_signal():
            while not stop.is_set():
                Agent(*reload.loaded, base=base, where=where).run(
                    stop, is_replaced=reload.is_due, must_reach_broker=reload.is_first
                )


def _check(source: Path, said: dict[str, dict[str, Any]]) -> Exit:
    """Prints a line for each finding; the code of the first that failed."""
    from edgernn_device.check import Finding, check

    logging.getLogger("edgernn_device").setLevel(logging.CRITICAL)  # the findings say it all
    try:
        config = _agent_config(source, said)
    except EdgernnError as exc:
        click.echo(Finding("FAIL", "config", str(exc)))
        return exc.exit_code
    code = Exit.DONE
    for finding in check(config, base=_base(source), where=str(source)):
        click.echo(finding)
        code = code or finding.code
    return code


def _agent_config(source: Path, said: dict[str, dict[str, Any]]) -> Any:
    """The file's settings with what the command line says otherwise."""
    from edgernn.settings import read_settings
    from edgernn_device.config import AgentConfig

    if source.suffix == ".toml":
        return _override(read_settings(source, AgentConfig), said)
    if source.suffix == ".onnx" or source.is_dir() or str(source) == GENERAL:
        return _override(AgentConfig(model=str(source)), said)
    raise EdgernnError(
        f"{source}: expected an agent's .toml, an .onnx of `edgernn export`, or {GENERAL}, which "
        "comes with edgernn"
    )


def _base(source: Path) -> Path:
    """The folder that files named in an agent's settings are relative to."""
    return source.parent if source.suffix == ".toml" else Path()


def _model_from_here(model: str | None) -> str | None:
    """A path of the command line is relative to where it was given."""
    return model if model in (None, GENERAL) else str(Path(model).absolute())


def _from_here(trusted_keys: tuple[str, ...]) -> list[str]:
    """Files of the command line are relative to where it was given."""
    return [key if is_inline(key) else str(Path(key).absolute()) for key in trusted_keys]


def _override(config: Any, said: dict[str, dict[str, Any]]) -> Any:
    """The agent's configuration with what the command line says otherwise, checked again."""
    data = msgspec.to_builtins(config)
    for section, values in said.items():
        target = data[section] if section else data
        target.update({key: value for key, value in values.items() if value is not None})
    return to_settings(data, type(config), where="command line")


@click.command()
@click.option("-o", "--output", type=PATH, required=True, help="A .csv or .parquet file.")
@click.option("--subscribe", default=DEFAULT_PATTERN, show_default=True)
@click.option("--channel", "channels", multiple=True, help="Default: those of the first messages.")
@click.option("--map", "names", multiple=True, metavar="CHANNEL=PATH", help="Of nested fields.")
@click.option("--word", "words", multiple=True, metavar="TEXT=NUMBER", help="Such as open=1.")
@click.option("--samples", default="", help="Path to the samples in a message. Default: it is one.")
@click.option("--period", "period_s", type=float, help="With {channel}: seconds between samples.")
@click.option("--hold", "hold_s", type=float, help="With {channel}: how long a value stands.")
@click.option("--duration", "duration_s", type=float, help="Stop after this many seconds.")
@click.option("--max-samples", type=int, help="Stop after this many samples.")
@click.option("--max-bytes", type=int, help="Stop when the file is this large.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@broker_options
def record(
    output: Path,
    subscribe: str,
    channels: tuple[str, ...],
    names: tuple[str, ...],
    words: tuple[str, ...],
    samples: str,
    period_s: float | None,
    hold_s: float | None,
    duration_s: float | None,
    max_samples: int | None,
    max_bytes: int | None,
    force: bool,
    **broker: Any,
) -> None:
    """Write live MQTT samples to a recording, until Ctrl-C or a limit."""
    from edgernn_device import record as recorder
    from edgernn_device.mapping import WORDS, Mapping

    mapping = Mapping.parse(
        _pairs(names, "--map"),
        samples=samples,
        words={**WORDS, **{k: _number(v, "--word") for k, v in _pairs(words, "--word").items()}},
        where="command line",
    )
    with stop_on_signals() as stop:
        done = recorder.record(
            output,
            _access(**broker),
            pattern=subscribe,
            mapping=mapping,
            channels=channels,
            period_s=period_s,
            hold_s=hold_s,
            max_samples=max_samples,
            max_bytes=max_bytes,
            duration_s=duration_s,
            force=force,
            stop=stop,
        )
    click.echo(
        f"{output}: {done.samples:,} samples of {done.streams} stream(s), "
        f"{len(done.channels)} channels, {done.size_bytes:,} bytes; ended by {done.ended_by}"
    )
    for what, counts in (("refused", done.refused), ("unknown channel", done.unknown)):
        for reason, count in counts.items():
            click.echo(f"  {what}: {reason}: {count:,}")


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, Any]:
    """Of "name=value"."""
    pairs = [text.partition("=")[::2] for text in texts]
    for name, value in pairs:
        if not (name and value):
            raise EdgernnError(f"{option}: expected a name, = and a value, got {name or value!r}")
    return dict(pairs)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise EdgernnError(f"{option}: expected a number, got {text!r}") from exc


@click.command()
@click.argument("recording", type=PATH)
@click.option("--stream", "streams", multiple=True, help="Name of the stream. May be given again.")
@click.option("--publish", default=DEFAULT_PATTERN, show_default=True, help="Where samples go.")
@click.option(
    "--speed", type=float, default=1.0, show_default=True, help="Times real time; 0 = all."
)
@click.option("--block", type=int, default=1, show_default=True, help="Samples in a message.")
@click.option("--qos", type=click.Choice(["0", "1"]), default="1", show_default=True)
@click.option("--now", "rebase", is_flag=True, help="Shift times so that the first sample is now.")
@click.option("--time", default="", help="Name of the time column. Default: found.")
@click.option("--label", default="", help="Name of the label column, which is not sent.")
@click.option("--stream-column", default="", help="Name of the stream column. Default: found.")
@click.option("--ignore", multiple=True, help="A column to leave out. May be given again.")
@broker_options
def replay(
    recording: Path,
    streams: tuple[str, ...],
    publish: str,
    speed: float,
    block: int,
    qos: str,
    rebase: bool,
    time: str,
    label: str,
    stream_column: str,
    ignore: tuple[str, ...],
    **broker: Any,
) -> None:
    """Publish a recording over MQTT as if its sensors were there."""
    from edgernn_device import replay as player

    with stop_on_signals() as stop:
        done = player.replay(
            recording,
            _access(**broker),
            streams=streams,
            pattern=publish,
            columns=Columns(time=time, label=label, stream=stream_column, ignore=ignore),
            speed=speed,
            block=block,
            qos=1 if qos == "1" else 0,
            rebase=rebase,
            stop=stop,
        )
    click.echo(f"{done.samples:,} samples in {done.messages:,} messages, {done.duration_s:.1f} s")
    if not done.is_complete:
        click.echo("stopped before the end", err=True)


@click.command()
@click.option("--prefix", default=DEFAULT_PREFIX, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--count", type=int, help="Stop after this many lines.")
@click.option("--timeout", "timeout_s", type=float, help="Stop after this many seconds.")
@broker_options
def watch(
    prefix: str, as_json: bool, count: int | None, timeout_s: float | None, **broker: Any
) -> None:
    """Print alerts, classes and forecasts as they arrive, until Ctrl-C or a limit.

    What was said before and holds still, a class or a forecast, comes first and says so.
    """
    from edgernn_device import watch as watcher

    with stop_on_signals() as stop:
        watcher.watch(
            _access(**broker),
            click.echo,
            partial(click.echo, err=True),
            prefix=prefix,
            as_json=as_json,
            count=count,
            timeout_s=timeout_s,
            stop=stop,
        )


@click.command()
@click.option("--port", type=int, default=1883, show_default=True, help="0 = a free one.")
@click.option("--kind", type=click.Choice(["mosquitto", "iotcore"]), help="Default: what is there.")
def broker(port: int, kind: Any) -> None:
    """Start an MQTT broker on loopback, for trials: Mosquitto if there, else an embedded one."""
    from edgernn_device.broker import TrialBroker

    with stop_on_signals() as stop, TrialBroker(port, kind=kind) as running:
        click.echo(running.sentence)
        running.wait(stop)

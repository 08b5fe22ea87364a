"""The commands keygen and sign. They need the extra `sign`, and neither torch nor onnx."""

from pathlib import Path

import click

from edgernn.errors import EdgernnError
from edgernn.settings import make_folder, write_atomically
from edgernn_device.keys import generate, public_key, read_private_key
from edgernn_device.keys import sign as signed
from edgernn_device.shipped import GENERAL, artefact_path
from edgernn_device.trust import admit, read_artefact

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("name", type=PATH)
def keygen(name: Path) -> None:
    """Make a key pair to sign artefacts with: NAME.pem, which stays secret, and NAME.pub."""
    make_folder(name.parent)
    private, public, key = generate(name)
    click.echo(
        f"{private}: the private key {key.id}; whoever has it can sign, so keep it off devices"
    )
    click.echo(f"{public}: the public key; in the agent's file:")
    click.echo(f'trusted_keys = ["{key}"]')


@click.command()
@click.argument("artefact", type=PATH)
@click.option("--key", "key_file", type=PATH, required=True, help="A .pem of `edgernn keygen`.")
@click.option("-o", "--output", type=PATH, help="Another file. Default: ARTEFACT itself.")
def sign(artefact: Path, key_file: Path, output: Path | None) -> None:
    """Sign an artefact, in place of any signature that it has. ARTEFACT is a file, or general: of
    the one that comes with edgernn a signed copy is written."""
    if str(artefact) == GENERAL and output is None:
        raise EdgernnError(f"{GENERAL}: comes with edgernn and stays as it is; say -o for a copy")
    key = read_private_key(key_file)
    model = read_artefact(artefact_path(str(artefact), Path()))
    admit(model, where=str(artefact))
    target = output or artefact
    write_atomically(target, signed(model, key))
    click.echo(f"{target}: signed by key {public_key(key).id}")

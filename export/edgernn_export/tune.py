"""The command `edgernn tune` at work: above export, as a trial may be judged by its artefact."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import click
from optuna.exceptions import StorageInternalError

from edgernn.errors import EdgernnError
from edgernn.settings import make_folder
from edgernn.tune.conduct import conduct, make_objective, open_study
from edgernn.tune.findings import write_findings
from edgernn.tune.objective import Cost
from edgernn.tune.study import read_plan
from edgernn_device.stopping import stop_on_signals
from edgernn_export.cost import artefact_bytes, step_us

COSTS: Mapping[str, Cost | None] = MappingProxyType(
    {"": None, "bytes": artefact_bytes, "step_us": step_us}
)
"""By their names in `study.against`."""


def tune(study_file: Path, output: Path | None, join: bool) -> None:
    """What `cli.tune` says."""
    plan = read_plan(study_file)
    folder = output or Path("studies") / plan.name
    make_folder(folder)
    objective = make_objective(plan, COSTS[plan.study.against], folder)
    try:
        with open_study(plan, objective, folder, join=join) as study:
            click.echo(
                f'study "{plan.name}": {plan.trials} trials of {", ".join(plan.space.keys)} '
                f"by {plan.study.sampler}, {plan.study.workers} at a time"
            )
            with stop_on_signals() as stop:
                conduct(plan, objective, study, say=click.echo, stop=stop)
            if stop.is_set():
                click.echo(f"stopped; go on with: edgernn tune {study_file}")
                raise click.Abort
            for line in write_findings(study, plan, folder):
                click.echo(line)
    except StorageInternalError as exc:
        raise EdgernnError(f"study.storage: lost on the way ({exc}); run it again") from exc

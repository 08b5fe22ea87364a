"""The command benchmark: any folder laid out as a public set, detectors and plain methods."""

import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import click
import msgspec
from tqdm import tqdm

from edgernn.benchmark.baselines import BASELINES
from edgernn.benchmark.columns import as_csv, table
from edgernn.benchmark.corpus import PROTOCOLS, read_corpus
from edgernn.benchmark.figures import Row, judged, rows_of
from edgernn.benchmark.folder import either
from edgernn.benchmark.method import Method, Said
from edgernn.benchmark.page import Page, write_page
from edgernn.benchmark.plain import Plain
from edgernn.benchmark.score_files import write_scores
from edgernn.benchmark.series import Corpus
from edgernn.calibration import parse_budget
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.options import PATH
from edgernn.settings import check_is_writable, make_folder, write_atomically
from edgernn_device.engine import Engine
from edgernn_export.artefact import QUANTIZATIONS
from edgernn_export.benchmark.detectors import Ready, Trained, read_training_file
from edgernn_export.benchmark.streamed import fitted
from edgernn_export.benchmark.work import answers

OWN = "edgernn"
"""The detector that comes along."""
ALL = "all"
QUIET = 288
"""NAB: rows in which a score has to be beaten to count again."""


class Said_(msgspec.Struct, frozen=True):
    """placeholder"""

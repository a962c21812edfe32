"""The commands of the command line, in the order in which help lists them."""

from rfdiff.cli import (
    calibrate,
    collect,
    compare,
    design,
    diagnose,
    explore,
    fit,
    generate,
    images,
    init,
    phase_map,
    plan,
    plot,
    predict,
    simulate,
    speciate,
    sweep,
    times,
)
from rfdiff.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    init.COMMAND,
    fit.COMMAND,
    diagnose.COMMAND,
    predict.COMMAND,
    simulate.COMMAND,
    compare.COMMAND,
    plan.COMMAND,
    phase_map.COMMAND,
    times.COMMAND,
    design.COMMAND,
    calibrate.COMMAND,
    speciate.COMMAND,
    generate.COMMAND,
    sweep.COMMAND,
    collect.COMMAND,
    plot.COMMAND,
    explore.COMMAND,
    images.COMMAND,
)

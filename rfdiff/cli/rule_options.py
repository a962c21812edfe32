"""Options that name a training rule, for every command that trains, and the rule they name."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from rfdiff.cli.options import Number, choice, optional_number
from rfdiff.errors import InputError
from rfdiff.rules import RULES, SAMPLINGS, GradientFlow, Ridge, Rule, RuleName, rule_of

RULE_OPTIONS = {name: rule.arguments for name, rule in RULES.items()}  # what each rule needs
RULE_CHOICES = {name: tuple(rule.options) for name, rule in RULES.items()}  # what it may be given
OPTION_NAMES = {"batch_per_dimension": "batch"}  # where the option is called otherwise than the number of the rule
RULE_FIELDS = tuple(dict.fromkeys(name for rule in RULES.values() for name in (*rule.arguments, *rule.options)))

OTHER_NAMES = tuple(f"--{name.replace('_', '-')}" for name in OPTION_NAMES)  # the name of the number is understood too

Batch = Annotated[float | None, optional_number(), tyro.conf.arg(help_behavior_hint="", aliases=OTHER_NAMES)]
DRAWS = (
    "How sgd draws samples. uniform: all alike. balanced: a class by its loss weight (its weight in the training loss), then a sample. "
    "weighted: all alike, with each loss times loss weight over class fraction."
)
Sampling = Annotated[Literal["uniform", "balanced", "weighted"] | None, *choice(SAMPLINGS), tyro.conf.arg(help=DRAWS)]
RuleInTime = Annotated[RuleName, tyro.conf.arg(metavar="{" + ",".join(name for name in RULES if name != Ridge.name) + "}")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Options of the training rule."""

    rule: RuleName = GradientFlow.name
    """Training rule; the options below say with which rules they go."""
    step_size: Number = None
    """Step size of gradient-descent, heavy-ball, nesterov and sgd, in units of the training time tau."""
    batch: Batch = None
    """Batch size of sgd over the dimension d."""
    sampling: Sampling = None
    momentum: Number = None
    """Momentum of heavy-ball, nesterov and sgd, at least 0 and below 1."""
    weight_decay: Number = None
    """Weight decay (not for ridge): a number added to every eigenvalue of U, the matrix of second moments of the features."""
    averaging: Number = None
    """Moving average of the weights (not for ridge): with gradient-flow its time constant; for other rules its decay per step, below 1."""


def training_rule(options: RuleOptions) -> Rule:
    """The rule that the options name.

    Raises:
        InputError: an option that the rule needs is missing, one was given that it does not take, or a number is out of range.
    """
    for name in ("taus", "penalties"):
        if getattr(options, name, None) == ():
            raise InputError(f"--{name}: given without a number; allowed: at least 3 numbers, or no --{name}")
    for name in RULE_FIELDS:
        given, flag = given_number(options, name) is not None, option_of(name)
        if not given and name in RULE_OPTIONS[options.rule]:
            raise InputError(f"{flag}: missing; --rule {options.rule} needs it")
        if given and name not in (*RULE_OPTIONS[options.rule], *RULE_CHOICES[options.rule]):
            users = " and ".join(rule for rule in RULES if name in (*RULE_OPTIONS[rule], *RULE_CHOICES[rule]))
            raise InputError(f"{flag}: not an option of --rule {options.rule}; it goes with {users}")
    if options.rule == Ridge.name and getattr(options, "taus", None):
        raise InputError("--taus: not an option of --rule ridge, whose penalties take the place of training times")
    arguments = {name: given_number(options, name) for name in RULE_OPTIONS[options.rule]}
    arguments |= {name: value for name in RULE_CHOICES[options.rule] if (value := given_number(options, name)) is not None}
    if "penalties" in arguments:
        arguments["penalties"] = sorted(arguments["penalties"], reverse=True)  # smaller ones stand for later times
    try:
        return rule_of(options.rule, **arguments)
    except InputError as err:  # it begins with the name of the number
        name, colon, fault = str(err).partition(":")
        raise InputError(f"{option_of(name) if name in arguments else name}{colon}{fault}") from err


def option_of(name: str) -> str:
    """The option that gives a number of a rule, with its dashes."""
    return f"--{OPTION_NAMES.get(name, name).replace('_', '-')}"


def rule_in_time(options: RuleOptions) -> Rule:
    """The rule that the options name, for commands that read times.

    Raises:
        InputError: as `training_rule`; or ridge, which has no training time.
    """
    if options.rule == Ridge.name:
        others = ", ".join(name for name in RULES if name != Ridge.name)
        raise InputError(f"--rule: ridge, which has penalties and no training time; allowed: {others}")
    return training_rule(options)


def given_number(options: RuleOptions, name: str) -> Any:
    """What the options say of a number of a rule; None where they do not."""
    return getattr(options, OPTION_NAMES.get(name, name), None)


def rule_record(options: RuleOptions) -> dict[str, Any]:
    """What a result file records of the rule, without the penalties of ridge."""
    numbers = {name: given_number(options, name) for name in RULE_FIELDS if name != "penalties"}
    return {"rule": options.rule, **{name: value for name, value in numbers.items() if value is not None}}


def rule_text(attributes: Mapping[str, Any]) -> str:
    """The rule that a record names, with its numbers; empty for gradient flow alone."""
    rule = str(attributes.get("rule", GradientFlow.name))
    names = [name for name in (*RULE_OPTIONS[rule], *RULE_CHOICES[rule]) if name in attributes]
    numbers = [f"{OPTION_NAMES.get(name, name).replace('_', ' ')} {attributes[name]}" for name in names]
    return "" if rule == GradientFlow.name and not numbers else ", ".join([rule, *numbers])

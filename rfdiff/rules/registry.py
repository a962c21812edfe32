"""Training rules by name, with their numbers as plain data."""

from typing import Any

import numpy as np

from rfdiff.errors import InputError
from rfdiff.rules.descent import GradientDescent, HeavyBall, Nesterov
from rfdiff.rules.flow import GradientFlow
from rfdiff.rules.interface import Rule
from rfdiff.rules.minibatch import MinibatchSGD
from rfdiff.rules.ridge import Ridge

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (GradientFlow, GradientDescent, HeavyBall, Nesterov, MinibatchSGD, Ridge)}


def rule_of(name: str, **numbers: Any) -> Rule:
    """A training rule by its name.

    Args:
        name: one of `RULES`.
        numbers: its `arguments`, each by name, and any of its `options`.

    Raises:
        InputError: another name; a number that the rule needs is missing, or is not one of its own; a number out of range.
    """
    if name not in RULES:
        raise InputError(f"rule: {name!r}; allowed: {', '.join(RULES)}")
    wanted, optional = RULES[name].arguments, tuple(RULES[name].options)
    for number in (*numbers, *wanted):
        if number not in numbers or number not in (*wanted, *optional):
            takes = ", ".join(wanted) or "no numbers"
            may = f", and may be given {', '.join(optional)}" if optional else ""
            raise InputError(f"{number}: {'missing' if number in wanted else 'given'}; allowed: rule {name} takes {takes}{may}")
    return RULES[name](**numbers)


def rule_numbers(rule: Rule) -> dict[str, Any]:
    """The numbers of a rule by name, as plain floats and lists: `rule_of(rule.name, **rule_numbers(rule))` is the same rule.

    Options that are not in use are left out, so that a file made without them names the same rule.
    """
    given = [name for name, otherwise in rule.options.items() if getattr(rule, name) != otherwise]
    return {name: np.asarray(getattr(rule, name)).tolist() for name in (*rule.arguments, *given)}

"""The tables of a plan are taken as they are: a copy made to convert them would be gone before it is read."""

from dataclasses import replace

import numpy as np
import pytest

from heliograph.kernels.native import compiled
from heliograph.postprocessing.reconciliation import mirror

OTHERS = [("words", np.int64), ("outs", np.uint64), ("tail", np.int64), ("turns", np.int64)]


@pytest.mark.skipif(compiled is None, reason="needs the compiled kernels")
@pytest.mark.parametrize(("name", "kind"), OTHERS)
def test_a_table_of_another_type_is_refused_and_not_read_after_its_end(name, kind):
    plan, _ = mirror._plans(70_000, bytes(32), 0.01, mirror.FEW_ROUNDS)

    def make(first):
        shuffles = (first, *plan.shuffles[1:])
        levels = plan.first, plan.second, plan.third
        return compiled.Plan(plan.length, *levels, shuffles, plan.keys, plan.window, plan.few, plan.at_once)

    make(plan.shuffles[0])
    with pytest.raises((TypeError, RuntimeError)):
        make(replace(plan.shuffles[0], **{name: getattr(plan.shuffles[0], name).astype(kind)}))

# SPDX-License-Identifier: ISC
"""Random operation against a reference model: statemachine.py has the rules, reference.py the expected behaviour.

    make check-random RANDOM_TIME=120 RANDOM_SEED=1

RANDOM_TIME is the time for all models together, in seconds; RANDOM_SEED, which is printed, repeats the choices. A failed run
ends with a short program that fails. To run it again, or to make a test of it: `from statemachine import *` before it,
PYTHONPATH=tests/lib:tests/random.
"""

import os
import random
import time

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="python3-hypothesis is not installed")
import hypothesis.internal.conjecture.engine as engine
from hypothesis.stateful import run_state_machine_as_test

import statemachine

SECONDS = float(os.environ.get("RANDOM_TIME") or 20)
STEPS = int(os.environ.get("RANDOM_STEPS") or 80)  # of one daemon
PARALLEL = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
REPORTING = 4 * statemachine.PATIENCE + 120  # seconds for the last programs, each of which may wait for the time limit


# hypothesis begins with up to 50 programs of few steps, which would take all of the time.
engine.clamp = lambda *limits: -1


def share(count):
    """Seconds for each of `count` models, so that all of them together take RANDOM_TIME."""
    return SECONDS / -(-count // PARALLEL)


@pytest.mark.timeout(SECONDS + statemachine.SHRINKING + REPORTING)
def test_random(model, request, record_property):
    seconds = share(len(request.session.items))
    seed = int(os.environ.get("RANDOM_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"repeat with RANDOM_SEED={seed}")
    tested = hypothesis.seed(seed)(statemachine.MACHINES[model])
    tested.began = time.monotonic()
    tested.until = tested.began + seconds
    settings = hypothesis.settings(max_examples=1000000, stateful_step_count=STEPS, deadline=None, database=None,
                                   suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
                                   phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink))
    statemachine.steps[model] = 0
    try:
        run_state_machine_as_test(tested, settings=settings)
    except (statemachine.TimeOver, hypothesis.errors.Flaky) as end:
        if not tested.failure and not isinstance(end.__context__ or end, statemachine.TimeOver):
            raise
    finally:
        if tested.failure:
            print("The shortest program that failed:", *tested.failed_program, "state.teardown()", sep="\n    ")
    if tested.failure:  # also if it did not happen again in the repeated program, or if no time was left to shorten the program
        raise tested.failure
    assert statemachine.steps[model] > 0, "no step was made"
    record_property(f"{model}, random steps",
                    f"{statemachine.steps[model]} in {seconds:.0f} s, seed {seed}, without a disagreement")

"""The parts of `alexnet benchmark`: phases, blocks, arithmetic, baselines, and workers that fail."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from alexnet.benchmark import baselines, bench, limits, measure
from alexnet.benchmark.baselines import BASELINES, build_contestant, choose_baselines
from alexnet.benchmark.bench import Bench, Ready
from alexnet.benchmark.clock import PhaseClock, measure_phases, time_block
from alexnet.benchmark.contestants import LEVERS, Contestant, random_batches
from alexnet.benchmark.crew import Worker, WorkerError
from alexnet.benchmark.job import Job, LeftOut
from alexnet.benchmark.limits import Limits, LimitsMeter, flops_per_image
from alexnet.benchmark.report import BenchmarkReport, Measurement, median_limits, ratio, ratio_spread
from alexnet.errors import RunError, UserError
from alexnet.models import get_architecture
from alexnet.ops import native
from alexnet.reporting.progress import Progress

CPU = torch.device("cpu")


def job(task="train", model="cifar_quick", batch_size=4, precision="float32"):
    return Job(task, model, batch_size, precision, "cpu", None)


# ---------------------------------------------------------------- time


class Ticks:
    """A clock that moves on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_phases_are_those_of_the_step_and_add_up_to_it():
    ticks = Ticks()
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def took(seconds, value=None):
        ticks.now += seconds
        return value

    model.register_forward_hook(lambda *_: took(0.020))
    backward = iter((0.1, 0.3, 0.2))

    def step():
        took(0.001)
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        took(next(backward))
        optimizer.step()
        took(0.005)

    # The hook above is called before those of the phases.
    phases = measure_phases(step, model, optimizer, 3, PhaseClock(CPU, ticks))
    assert list(phases) == ["input", "forward", "backward", "update"]
    assert phases == pytest.approx({"input": 1, "forward": 20, "backward": 200, "update": 5})
    before = ticks.now
    backward = iter((0.0,))
    step()  # the hooks are gone: nothing is recorded for it
    assert ticks.now > before
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert len(model._forward_hooks) == 1 and not model._forward_pre_hooks


def test_inference_has_two_phases_and_what_follows_the_model_is_forward():
    ticks = Ticks()
    model = nn.Identity()

    def step():
        ticks.now += 1
        model(torch.ones(1))
        ticks.now += 2

    assert measure_phases(step, model, None, 2, PhaseClock(CPU, ticks)) == {"input": 1000, "forward": 2000}


def test_hooks_are_removed_when_a_step_fails():
    model = nn.Identity()

    def step():
        model(torch.ones(1))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        measure_phases(step, model, None, 1, PhaseClock(CPU))
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_a_block_is_so_many_steps():
    done = []
    assert time_block(lambda: done.append(1), 7, CPU) >= 0
    assert len(done) == 7


# ---------------------------------------------------------------- arithmetic


def measurement(name, block_seconds, steps=2, batch_size=10, phases=None):
    ready = Ready(f"settings of {name}", 2, 3.5, steps, 1.0)
    return Measurement(name, ready, batch_size, tuple(block_seconds), phases or {}, 1234)


def test_rates_are_images_over_seconds_and_the_median_counts():
    ours = measurement("ours", (1.0, 4.0, 2.0))
    assert ours.rates == [20.0, 5.0, 10.0]
    assert ours.images_per_second == 10.0
    assert ours.spread == (5.0, 20.0)
    assert ours.step_ms == pytest.approx(1000.0)


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_rounds():
    ours, other = measurement("ours", (1.0, 4.0, 2.0)), measurement("textbook", (4.0, 8.0, 10.0))
    assert ratio(ours, other) == pytest.approx(10.0 / 2.5)
    assert ratio_spread(ours, other) == pytest.approx((2.0, 5.0))


# As counted by hand: two for a multiply-add, three passes, none for the gradient of the images.
@pytest.mark.parametrize(("name", "gflops"), [("paper", 4.136), ("torchvision", 4.145), ("one_tower", 6.601)])
def test_a_training_step_needs_three_passes_less_the_gradient_of_the_images(name, gflops):
    assert flops_per_image(get_architecture(name), "train") / 1e9 == pytest.approx(gflops, abs=6e-4)


def test_inference_needs_two_operations_a_multiply_add():
    assert flops_per_image(get_architecture("paper"), "inference") / 1e9 == pytest.approx(2 * 0.7244, abs=1e-4)


def test_limits_count_all_operations_and_bytes_read_and_written(monkeypatch):
    monkeypatch.setattr(limits, "_MATMUL_SIDES", (8, 16, 32, 64))
    monkeypatch.setattr(limits, "_COPY_BYTES", 4096)
    calls = []

    def seconds_each(work, device):
        work()
        calls.append(len(calls))
        return (1e-6, 0.5, 2.0)[len(calls) - 1] if len(calls) <= 3 else 0.25

    monkeypatch.setattr(limits, "_seconds_each", seconds_each)
    meter = LimitsMeter(job())
    first = meter.measure()
    # The second size took long, so that the third is not tried; the third call is the copy.
    assert first == Limits(2 * 8**3 / 1e-6, 2 * 4096 / 2.0)
    assert meter.sides == (8, 16)
    assert meter.measure().copy_bytes_per_second == 2 * 4096 / 0.25


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_limits_are_measured_in_the_precision_on_random_numbers(monkeypatch, precision):
    monkeypatch.setattr(limits, "_MATMUL_SIDES", (16,))
    monkeypatch.setattr(limits, "_COPY_BYTES", 4096)
    monkeypatch.setattr(limits, "_SECONDS", 1e-4)
    seen = []
    real = torch.mm

    def mm(a, b, out):
        seen.append((a.dtype, a.float().std().item()))
        return real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    found = LimitsMeter(job(precision=precision)).measure()
    assert found.matmul_flops_per_second > 0 and found.copy_bytes_per_second > 0
    assert all(dtype == getattr(torch, precision) and std > 0.5 for dtype, std in seen)


def test_the_record_has_what_machines_read():
    ours = measurement("ours", (1.0, 4.0, 2.0), phases={"input": 1.0})
    report = BenchmarkReport(
        job=job(),
        rounds=3,
        ours=ours,
        baselines=[measurement("textbook", (4.0, 8.0, 10.0))],
        left_out=[LeftOut("flags", "why")],
        limits=median_limits([Limits(1e3, 5.0), Limits(4e3, 7.0), Limits(2e3, 6.0)]),
        flops_per_image=50,
        environment={"cores": 2},
    )
    record = json.loads(json.dumps(report.to_dict()))
    assert record["images_per_second"] == 10.0
    assert record["images_per_second_spread"] == [5.0, 20.0]
    assert record["phases_ms"] == {"input": 1.0}
    assert record["hardware"] == {
        "matmul_flops_per_second": 2e3,
        "copy_bytes_per_second": 6.0,
        "flops_per_image": 50,
        "share_of_matmul": 0.25,
    }
    (textbook,) = record["baselines"]
    assert (textbook["name"], textbook["ratio"], textbook["peak_memory_bytes"]) == ("textbook", 4.0, 1234)
    assert record["left_out"] == [{"name": "flags", "reason": "why"}]
    assert (record["task"], record["model"], record["batch_size"]) == ("train", "cifar_quick", 4)
    assert (record["precision"], record["threads"], record["rounds"]) == ("float32", 2, 3)


# ---------------------------------------------------------------- baselines


def fast_bfloat16(monkeypatch, fast):
    monkeypatch.setattr(baselines, "has_fast_bfloat16", lambda device: fast)


def test_the_default_is_what_makes_sense_on_the_machine(monkeypatch):
    monkeypatch.setattr(baselines, "find_spec", lambda name: object())
    monkeypatch.setattr(baselines.shutil, "which", lambda name: "/bin/cc")
    fast_bfloat16(monkeypatch, True)
    chosen, left_out = choose_baselines(None, job(model="as_run", precision="bfloat16"))
    assert chosen == ["textbook", "flags", "torchvision", "torchvision-compiled"]
    assert [item.name for item in left_out] == ["flags-float32"]
    chosen, left_out = choose_baselines(None, job(model="as_run", precision="float32"))
    assert "flags-float32" in chosen and [item.name for item in left_out] == ["flags"]
    fast_bfloat16(monkeypatch, False)
    chosen, left_out = choose_baselines(None, job("inference", model="as_run", precision="bfloat16"))
    assert "flags-float32" in chosen and "onnxruntime" in chosen
    assert [item.name for item in left_out] == ["flags"] and "slower" in left_out[0].reason


def test_what_is_named_runs_where_it_can(monkeypatch):
    fast_bfloat16(monkeypatch, False)
    assert choose_baselines("flags, textbook,flags", job()) == (["flags", "textbook"], [])
    assert choose_baselines("none", job()) == ([], [])
    chosen, left_out = choose_baselines("all", job())
    assert chosen == ["textbook", "flags", "flags-float32"]
    assert [item.name for item in left_out] == ["torchvision", "torchvision-compiled"]
    assert "63 px" in left_out[0].reason


def test_what_cannot_run_is_left_out_with_the_remedy(monkeypatch):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None if name.startswith("onnxs") else object())
    chosen, (left_out,) = choose_baselines("onnxruntime", job("inference"))
    assert chosen == []
    assert "onnxscript not installed" in left_out.reason and "alexnet[export]" in left_out.reason
    monkeypatch.setattr(baselines.shutil, "which", lambda name: None)
    _, left = choose_baselines("torchvision-compiled", job(model="as_run"))
    assert "C++ compiler" in left[0].reason


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("texbook", "did you mean 'textbook'"), ("onnxruntime", "has no training"), ("textbook,wrong", "'wrong'")],
)
def test_an_unknown_baseline_is_refused(wanted, words):
    with pytest.raises(UserError, match=words):
        choose_baselines(wanted, job())


def test_inputs_are_random_and_differ_from_step_to_step():
    first, second = random_batches(get_architecture("cifar_quick"), 4)
    assert first.crops.shape == (4, 32, 32, 3) and first.crops.dtype == torch.uint8
    assert first.crops.float().std() > 60 and first.crops.unique().numel() > 200
    assert not torch.equal(first.crops, second.crops)
    assert first.offsets.max() + 32 <= 36 and first.color_shift.std() > 1


TRAINING = [name for name in BASELINES if name in ("textbook", "flags", "flags-float32")]


@pytest.mark.parametrize("name", ["ours", *TRAINING])
def test_a_training_step_updates_every_weight_and_has_a_finite_loss(name):
    contestant = build_contestant(name, job())
    before = [parameter.detach().clone() for parameter in contestant.model.parameters()]
    (batch, _) = random_batches(contestant.architecture, 4)
    loss = contestant.step(batch)
    assert loss.shape == () and torch.isfinite(loss)
    assert not any(map(torch.equal, before, contestant.model.parameters()))


def test_all_contestants_begin_with_the_same_weights():
    weights = [
        torch.cat([p.detach().flatten() for p in build_contestant(name, job()).model.parameters()])
        for name in ("ours", *TRAINING)
    ]
    assert all(torch.equal(weights[0], other) for other in weights)


@pytest.mark.parametrize("name", ["ours", "textbook", "flags", "flags-float32"])
def test_inference_gives_logits_without_gradients(name):
    contestant = build_contestant(name, job("inference"))
    assert contestant.optimizer is None and not contestant.model.training
    logits = contestant.step(random_batches(contestant.architecture, 4)[0])
    assert logits.shape == (4, 1000) and logits.dtype == torch.float32 and not logits.requires_grad


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnxruntime_gives_the_logits_of_the_textbook_network():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    plain, runtime = (build_contestant(name, job("inference", "cifar_18pct")) for name in ("textbook", "onnxruntime"))
    batch = random_batches(plain.architecture, 4)[0]
    torch.testing.assert_close(runtime.step(batch), plain.step(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "autocast", "channels_last", "fused"),
    [("textbook", False, False, None), ("flags", True, True, True), ("flags-float32", False, True, True)],
)
def test_flags_are_what_they_say(monkeypatch, name, autocast, channels_last, fused):
    contestant = build_contestant(name, job())
    seen = []
    contestant.model.layers["conv2"].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    contestant.step(random_batches(contestant.architecture, 4)[0])
    assert seen[0].dtype == (torch.bfloat16 if autocast else torch.float32)
    for tensor in (seen[0], contestant.model.layers["conv2"].weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert contestant.optimizer.defaults["fused"] == fused
    assert type(contestant.optimizer) is torch.optim.SGD and contestant.optimizer.defaults["momentum"] == 0.9
    assert ("autocast" in contestant.settings, "fused" in contestant.settings) == (autocast, bool(fused))


def test_torchvision_is_its_own_network_at_the_precision_of_the_run(monkeypatch):
    fast_bfloat16(monkeypatch, True)
    for precision in ("float32", "bfloat16"):
        contestant = build_contestant("torchvision", job("inference", "as_run", precision=precision))
        assert contestant.architecture.name == "torchvision"
        assert ("autocast" in contestant.settings) == (precision == "bfloat16")


# ---------------------------------------------------------------- the bench


def bench_of(monkeypatch, loss, task="train"):
    done = []

    def step(batch):
        done.append(batch.step)
        return torch.tensor(loss)

    contestant = Contestant("nothing", step, get_architecture("cifar_quick"), CPU, None)
    monkeypatch.setattr(bench, "build_contestant", lambda name, job: contestant)
    return Bench("ours", job(task)), done


def test_blocks_last_about_a_second_and_batches_take_turns(monkeypatch):
    subject, done = bench_of(monkeypatch, 1.0)
    monkeypatch.setattr(
        bench, "time_block", lambda work, steps, device: [work() for _ in range(steps)] and 0.03 * steps
    )
    ready = subject.prepare()
    assert ready.steps_per_block == 34 and ready.block_seconds == pytest.approx(1.02)
    assert done[:4] == [0, 1, 0, 1] and len(done) == 2 + 4
    assert subject.block(3) == pytest.approx(0.09) and len(done) == 9
    assert subject.phases(3) == {} and subject.check() == 1.0
    assert subject.peak_memory_bytes() > 10**7


def test_a_block_of_a_slow_contestant_is_one_step(monkeypatch):
    subject, done = bench_of(monkeypatch, 1.0)
    monkeypatch.setattr(bench, "time_block", lambda work, steps, device: work() or 5.0 * steps)
    assert subject.prepare().steps_per_block == 1 and len(done) == 2


@pytest.mark.parametrize(("task", "output"), [("train", float("nan")), ("inference", [[float("inf")] * 1000] * 4)])
def test_a_loss_that_is_not_finite_is_refused(monkeypatch, task, output):
    subject, _ = bench_of(monkeypatch, output, task)
    with pytest.raises(ValueError, match="its loss is"):
        subject.prepare()


# ---------------------------------------------------------------- workers


@pytest.fixture
def hire():
    workers = []

    def start(name, its_job):
        workers.append(Worker(name, its_job))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_worker_that_fails_or_dies_or_is_late_says_so(hire):
    with pytest.raises(WorkerError, match="There is no model 'nothing'"):
        hire("ours", job(model="nothing")).ask("prepare", seconds=120)
    late = hire("ours", job())
    with pytest.raises(WorkerError, match="gave no answer within 0 s"):
        late.ask("prepare", seconds=0.01)
    assert not late._process.is_alive()
    dead = hire("ours", job())
    os.kill(dead._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="memory"):
        dead.ask("prepare", seconds=120)


def test_workers_die_with_their_parent():
    code = (
        "import time\n"
        "from alexnet.benchmark.crew import Worker\n"
        "from alexnet.benchmark.job import Job\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker('textbook', Job('train', 'cifar_quick', 4, 'float32', 'cpu', 1))\n"
        "    worker.ask('prepare', seconds=60)\n"
        "    worker._connection.send(('block', (10**9,)))  # busy for days\n"
        "    print(worker._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    survived = is_running(pid)
    if survived:
        os.kill(pid, signal.SIGKILL)
    assert not survived


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may be there to collect what is left of an orphan.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.startswith("Z")


class FakeWorker:
    """Answers at once; fails at what it is told to fail at."""

    def __init__(self, name, log, failures):
        self.name, self.log, self.failures = name, log, failures

    def ask(self, method, *arguments, seconds):
        self.log.append((self.name, method))
        if self.failures.get(self.name) == method:
            raise WorkerError("gave up")
        answers = {
            "prepare": Ready(f"settings of {self.name}", 3, 0.5, 2, 1.0),
            "block": 2.0 if self.name == "ours" else 4.0,
            "measure": Limits(1e12, 1e10),
            "phases": {"input": 1.0},
            "peak_memory_bytes": 7,
        }
        return answers.get(method)


def fake_crew(monkeypatch, failures=None):
    log = []

    class FakeCrew:
        def __init__(self, job):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            log.append(("crew", "closed"))

        def hire(self, name):
            return FakeWorker(name, log, failures or {})

    monkeypatch.setattr(measure, "Crew", FakeCrew)
    return log


def run_measure(names, rounds=2):
    return measure.measure(job(), names, rounds=rounds, progress=Progress("silent"))


def test_contestants_and_limits_take_turns(monkeypatch):
    log = fake_crew(monkeypatch)
    report = run_measure(["textbook", "flags"])
    turns = [name for name, method in log if method in ("block", "measure")]
    assert turns == ["ours", "textbook", "flags", "hardware"] * 2
    assert [other.name for other in report.baselines] == ["textbook", "flags"]
    assert report.ours.images_per_second == 2 * 4 / 2.0
    assert ratio(report.ours, report.baselines[0]) == 2.0
    assert report.environment["threads"] == 3 and report.ours.peak_memory_bytes == 7
    # The phases, which wait for the device all the time, come when nothing is timed any more.
    assert log.index(("ours", "phases")) > max(i for i, entry in enumerate(log) if entry[1] == "block")


@pytest.mark.parametrize("method", ["prepare", "block", "check", "phases"])
def test_a_baseline_that_fails_is_left_out_and_the_others_go_on(monkeypatch, method):
    fake_crew(monkeypatch, {"textbook": method})
    report = run_measure(["textbook", "flags"])
    assert [other.name for other in report.baselines] == ["flags"]
    assert report.left_out == [LeftOut("textbook", "it failed: gave up")]


@pytest.mark.parametrize(("name", "method"), [("ours", "block"), ("hardware", "measure")])
def test_without_ours_there_is_no_report(monkeypatch, name, method):
    log = fake_crew(monkeypatch, {name: method})
    with pytest.raises(RunError, match="gave up"):
        run_measure(["textbook"])
    assert log[-1] == ("crew", "closed")


@pytest.mark.parametrize("lever", LEVERS)
def test_a_lever_is_ours_with_one_thing_otherwise(lever):
    before = native.AVAILABLE
    try:
        contestant = build_contestant(lever, Job("train", "cifar_11pct", 2, "float32", "cpu", 1))
        loss = contestant.step(random_batches(contestant.architecture, 2)[0])
    finally:
        native.use(before)
    assert loss.isfinite()
    assert ("no compiled kernels" in contestant.settings) == (lever == "plain-torch" or not before)
    assert ("conv1 space_to_depth" in contestant.settings) == (lever == "conv1-by-blocks")
    names = [layer.name for layer in contestant.architecture.layers]
    assert ("norm1" in names) == (lever != "no-norm")


def test_levers_are_measured_when_they_are_named():
    job = Job("train", "cifar_quick", 2, "float32", "cpu", 1)
    assert not set(choose_baselines(None, job)[0]) & set(LEVERS)
    assert choose_baselines("no-norm,textbook", job)[0] == ["no-norm", "textbook"]

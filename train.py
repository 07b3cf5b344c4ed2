"""Train: `python train.py [experiment=...] [dataset=...] [key=value ...]`; the same command again resumes."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from engine.config import Precision, register, task_overrides
from engine.launch import entry, launch
from engine.paths import check_training
from engine.preempt import Preempted, Preemption, leave_at_once


def train(cfg: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> int:
    """Train to the end of the config's schedule in a run folder; returns the last step.

    A folder that holds a checkpoint of the same config goes on from there, exactly. `overrides` are the words of the
    command, to tell a default from a wish. A signal (engine.preempt) ends it at a step with a checkpoint, as Preempted.

    Raises: UserError, and others of engine/, for what cannot be trained; among them a folder that is in use.
    """
    with Preemption() as preemption:
        return _train(cfg, folder, overrides, preemption)


def _train(cfg: DictConfig, folder: Path, overrides: Sequence[str], preemption: Preemption) -> int:
    """`train`, while signals are heard."""
    import torch  # here and below, so that --help, a mistyped key and a missing folder answer without loading it

    from engine import distributed
    from engine.build import Rates, build, build_dataset, held_out, memory_format, settle_channels, settle_palette
    from engine.checkpoint import Loaded, RunFolder, claim, restore, start_from
    from engine.checks import validate
    from engine.guard import FiniteGuard, gradient_norm
    from engine.inputs import Inputs
    from engine.lock import FolderLock
    from engine.profile import Profile
    from engine.record import Recorder, note_progress, note_start
    from engine.render import SampleGrid
    from engine.sampling import StepSampler, batches, mix
    from engine.schedule import Average, Plan
    from engine.trust import Trust
    from evaluate import evaluate_run, in_training
    from losses.objective import Views
    from metrics.catalogue import METRICS, merit
    from models.blocks import BatchNorm

    options = cfg.train
    rank, world = distributed.rank(), distributed.world()
    Trust.of(cfg)  # imports the modules of `code`; the command itself may name any other target
    validate(cfg, world, overrides)
    device = distributed.choose_device(options.device, "train.device")
    with (
        distributed.ranks(device),
        Profile(folder, options.profile if rank == 0 else 0, device) as profile,
        ExitStack() as stack,
    ):
        locks: list[FolderLock] = []  # rank 0 has the one of the folder
        distributed.on_first(lambda: locks.append(stack.enter_context(claim(folder))))
        settle_palette(cfg)
        data = build_dataset(cfg, "train", augment=True)
        inputs = Inputs.of(data)
        settle_channels(cfg, inputs)
        parts = build(cfg, inputs)
        shown = held_out(cfg) if options.samples else None
        run = RunFolder(folder, cfg)

        def prepare() -> bool:
            data.verify()
            return run.prepare(data)

        state = run.latest() if distributed.on_first(prepare) else None
        if cfg.checkpoint is not None and state is None:
            start_from(cfg.checkpoint, parts.networks)

        dtype = torch.float64 if options.precision is Precision.float64 else torch.float32
        layout = memory_format(cfg, device)
        for module in parts.modules:
            module.to(device=device, dtype=dtype, memory_format=layout)  # type: ignore[call-overload]  # torch has all three
        rates = Rates.of(cfg, parts)
        average = Average(torch.nn.ModuleDict(parts.generators), options.ema) if options.ema else None

        start = 0
        if state is not None:
            start = state["step"]
            restore(state, folder / "last.pt", parts.networks, rates.optimizers, average, parts.pools, device)

        sampler = StepSampler(len(data), options.batch_size, options.accumulate, cfg.seed, 0, 0, rank, world)
        plan = Plan(options, sampler.per_epoch)
        sampler.start, sampler.stop, sampler.plain_from = min(start, plan.steps), plan.steps, plan.plain_from
        best = distributed.on_first(lambda: run.best(state))
        judging = in_training(cfg) if cfg.evaluate.every else None
        if judging is not None:
            main_row = METRICS[judging.metrics[0]].rows[0]
            choice = {"metric": main_row, "split": judging.split, "images": judging.images}
            if best is not None and {key: best[key] for key in choice} != choice:
                best = None
        record = Recorder(folder, rank == 0, start, plan.steps, options.batch_size, state and state["record"])
        guard = FiniteGuard(device, options.limit, folder)
        grid = (
            SampleGrid(shown, inputs, options.samples, device, dtype, cfg.dataset.name)
            if rank == 0 and shown is not None
            else None
        )
        if rank == 0:
            if start == 0 or start < plan.steps:  # else nothing of what follows comes from this start
                note_start(folder, start, device, world)
            note_progress(folder, start, plan.steps)
            where = f"step {start} of {plan.steps}" if start < plan.steps else f"finished at step {start}"
            size = f"{sum(p.numel() for p in parts.generator.parameters()):,} generator parameters"
            print(f"{folder}: {where}; {len(data)} training images, {size}, {device}, {world} rank(s)")
            if world == 1 and any(isinstance(module, BatchNorm) for module in parts.generator.modules()):
                print("batch norm: statistics of the batch of this one rank; nothing to synchronise")
        if options.compile:
            compile_networks([*parts.generators.values(), *parts.discriminators.values()], device)
        g_step = distributed.parallel(parts.generator_step, device)
        others = {name: (bare, distributed.parallel(bare, device)) for name, bare in parts.other_steps.items()}
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision is Precision.bf16)

        profile.choose(plan.steps - start)
        profile.watch("generator forward", [parts.setting])
        profile.watch("losses", [parts.objective, *([parts.late] if parts.late is not None else [])])
        profile.watch("optimizer", rates.optimizers.values())
        encoder = parts.encoder.weights if parts.encoder is not None else None

        @profile.part("checkpoint")
        def save(step: int, name: str = "last.pt") -> None:
            guard.settle()
            pooled = {name: pool.state() for name, pool in parts.pools.items()} if options.pool else {}
            if rank == 0:
                locks[0].check()
                record.sync()
                networks = {name: network.state_dict() for name, network in parts.networks.items()}
                optimizers = {name: optimizer.state_dict() for name, optimizer in rates.optimizers.items()}
                run.save(
                    step,
                    inputs,
                    options.keep if name == "last.pt" else 0,
                    name,
                    networks=networks,
                    optimizers=optimizers,
                    record=record.state_dict(),
                    encoder=encoder,
                    **({"average": average.state_dict()} if average else {}),
                    **({"pools": pooled} if pooled else {}),
                    **({"best": best} if best else {}),
                )
                if name == "last.pt":
                    note_progress(folder, step, plan.steps)

        @profile.part("samples")
        def show(step: int) -> None:
            if grid is not None:
                with autocast, nullcontext() if average is None else average.applied():
                    record.samples(step, grid.rows(parts.generators))

        @profile.part("evaluation")
        def evaluate(step: int) -> None:
            """Measure this step's weights as evaluate.py would; the best so far are kept in best.pt."""
            nonlocal best
            assert judging is not None
            guard.settle()
            # With model.generator.sync=false each rank has statistics of its own; measured and saved are rank 0's.
            for network in parts.generators.values():
                distributed.broadcast(network.buffers())
            if average is not None:
                distributed.broadcast(average.values.values())
            weights = {"networks": {"generator": parts.generator.state_dict()}, "encoder": encoder}
            weights |= {"average": average.state_dict()} if average else {}
            found = evaluate_run(judging, Loaded(folder / "last.pt", step, cfg, inputs, weights), quiet=True)["metrics"]
            value, reached = found[main_row]["value"], merit(found[main_row])
            better = best is None or reached > best["merit"]
            record.evaluated(step, {name: entry["value"] for name, entry in found.items()}, better)
            if better:
                best = {**choice, "step": step, "value": value, "merit": reached}
                save(step, "best.pt")

        @profile.part("discriminators")
        def step_others(step: int, made: list[Views], values: dict[str, torch.Tensor]) -> None:
            """Terms' own parts, then the discriminators: one step each on the micro-batches' detached images."""
            parts.train_others(True)
            for name, (bare, module) in others.items():
                rates.optimizers[name].zero_grad(set_to_none=True)
                for micro, views in enumerate(made):
                    with autocast:
                        given = bare.inputs(views, mix(cfg.seed, 7, step, micro))
                    last = micro == len(made) - 1
                    with nullcontext() if last or world == 1 else module.no_sync(), autocast:
                        losses = module(*given)
                    with profile.part("backward"):
                        (sum(losses.values()) / len(made)).backward()
                    gather(values, losses, len(made))
                rates.optimizers[name].step()
            for name, network in beside.items():
                values[f"norm/{name}"] = gradient_norm(network)
            parts.train_others(False)

        if start == 0:
            with record.aside():
                show(0)
                if judging is not None:
                    evaluate(0)
        with_generator, beside = parts.stepped(False), parts.stepped(True)
        parts.train_others(False)
        begun, end, reached, stopped = time.perf_counter(), False, start, False
        preemption.listen(device)
        coming = stack.enter_context(batches(data, sampler, options.workers, device))
        for step in range(start, plan.steps):
            profile.step()
            torch.manual_seed(mix(cfg.seed, 3, step, rank))  # of noise in a generator; nothing that ranks share
            lr = rates.scale(plan.factor(step))
            values: dict[str, torch.Tensor] = {}
            draw = mix(cfg.seed, 4, step)
            asked = time.perf_counter()
            with profile.part("data wait"):
                micros = [next(coming) for _ in range(options.accumulate)]
            waited = time.perf_counter() - asked
            with profile.part("transfer"):
                micros = [inputs.to(batch, device, dtype, layout) for batch in micros]

            # Where the discriminator comes first (CUT), one micro-batch's graph waits for it; several would all have to
            # be kept, so that their images are made twice instead.
            first, alone = parts.setting.discriminator_first, options.accumulate == 1
            if first and not alone and others:
                with autocast:
                    fakes = [parts.generator_step.fakes(batch, draw) for batch in micros]
                step_others(step, fakes, values)
            kept = []
            rates.optimizers["generator"].zero_grad(set_to_none=True)
            for micro, batch in enumerate(micros):
                with nullcontext() if micro == len(micros) - 1 or world == 1 else g_step.no_sync(), autocast:
                    losses, views = g_step(batch, draw)
                if first and alone:
                    step_others(step, [views], values)
                if parts.late is not None:
                    with autocast:
                        losses |= parts.late(views)
                with profile.part("backward"):
                    (sum(losses.values()) / options.accumulate).backward()
                gather(values, losses, options.accumulate)
                gather(values, views.log or {}, options.accumulate)
                if not first:
                    kept.append(views.detached())
                del views, losses  # or this step's feature maps would live on beside the next one's
            for name, network in with_generator.items():
                values[f"norm/{name}"] = gradient_norm(network)
            rates.optimizers["generator"].step()
            if not first:
                if options.regenerate_fake and parts.discriminators:
                    with autocast:
                        kept = [parts.generator_step.fakes(batch, draw) for batch in micros]
                step_others(step, kept, values)

            if average is not None:
                average.update()
            guard.watch(step + 1, values, micros)
            record.add(values, waited)
            if (step + 1) % options.log_every == 0:
                sums = {**record.means(), "minutes": torch.tensor((time.perf_counter() - begun) / 60, device=device)}
                means = distributed.mean_over_ranks(sums)
                minutes = means.pop("minutes")
                end = options.minutes is not None and minutes >= options.minutes
                record.line(step + 1, means, lr, device)
            end |= step + 1 == plan.steps
            stopped = preemption.agreed() and not end
            with record.aside():
                if stopped:  # at once: who sends signals does not wait for an evaluation
                    save(step + 1)
                if (step + 1) % options.sample_every == 0 or end:
                    show(step + 1)
                measured = judging is not None and (step + 1) % cfg.evaluate.every == 0
                if measured:
                    evaluate(step + 1)
                if (step + 1) % options.save_every == 0 or end or (stopped and measured):
                    save(step + 1)
            reached = step + 1
            if end or stopped:
                break
        if start == 0 and plan.steps == 0:
            save(0)
        record.close()
        preemption.settle()
        distributed.barrier()
    if stopped:
        words = f"{folder}: stopped by a signal, saved at step {reached}; the same command goes on"
        raise Preempted(words, preemption.code)
    return reached


def gather(values: dict, losses: dict, parts: int) -> None:
    """Add this micro-batch's share of each term to the step's values, detached."""
    for name, loss in losses.items():
        share = loss.detach() / parts
        values[name] = values[name] + share if name in values else share


def compile_networks(networks: Sequence, device: Any) -> None:
    """torch.compile in place, which keeps the names of the state; without a working compiler one line, and on."""
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever the compiler of this machine raises, training must go on
        print(f"train.compile: no working compiler here ({type(error).__name__}), going on uncompiled")
        return
    for network in networks:
        network.compile(dynamic=False)  # training has one shape; the samples' own one must not soften it


@entry("train")
def main(cfg: DictConfig) -> None:
    """The command line."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    check_training(cfg, folder)
    try:
        train(cfg, folder, task_overrides())
    except Preempted as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, flush=True)
        sys.exit(stop.code)


register()
if __name__ == "__main__":
    leave_at_once()
    launch(main)

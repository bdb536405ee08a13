"""Writes kto.json from TRL's KTOTrainer. Usage: python kto.py > kto.json"""

import tempfile

import trl
from datasets import Dataset
from peer import data, model, sequences, tokenizer, write

METRICS = ["kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"]


def case(config, rows, seeds=(1, 2), **settings):
    """TRL's KTOTrainer on `rows` of (pair, side, label)."""
    policy, reference = (model(seed) for seed in seeds)
    args = trl.KTOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(rows), report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, **settings,
    )
    dataset = [{"prompt": data[i]["prompt"], "completion": data[i][side], "label": label} for i, side, label in rows]
    trainer = trl.KTOTrainer(
        policy, ref_model=reference, args=args, train_dataset=Dataset.from_list(dataset), processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy.train()
    loss = trainer.compute_loss(policy, batch).item()
    logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    made = {"config": config, "metrics": {"loss": loss}, "labels": batch["label"].tolist()}
    made |= sequences(policy, reference, batch["input_ids"], batch["completion_mask"])
    kept = [k for k in METRICS if k in logged]
    if "KL_input_ids" in batch:
        other = sequences(policy, reference, batch["KL_input_ids"], batch["KL_completion_mask"])
        ratios = [sum(p) - sum(r) for p, r in zip(other["logp"], other["ref_logp"])]
        made["mismatched"] = sum(ratios) / len(ratios)
    else:
        kept.remove("kl")
    made["metrics"] |= {k: logged[k] for k in kept}
    return made


every = [(i, side, side == "chosen") for i in range(4) for side in ("chosen", "rejected")]
mixed = [(0, "chosen", True), (1, "rejected", False), (2, "chosen", False), (3, "rejected", True), (1, "chosen", True)]
cases = []
for beta, rows, more in [
    (0.1, every, {}), (0.5, mixed, {}), (0.1, mixed, {"desirable_weight": 1.5, "undesirable_weight": 0.5}),
    (0.2, every[0::2], {}), (0.1, mixed, {"loss_type": "apo_zero_unpaired"}),
    (0.5, every[1::2], {"loss_type": "apo_zero_unpaired", "undesirable_weight": 2.0}),
]:
    for seeds in ((1, 2), (2, 1)) if not more else ((1, 2),):
        cases.append(case({"name": "kto", "beta": beta, **more}, rows, seeds, beta=beta, **more))
write(cases)

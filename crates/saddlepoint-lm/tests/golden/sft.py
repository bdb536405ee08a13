"""Writes sft.json: the loss and metrics of TRL's SFTTrainer, with the statistics of the supervised tokens that went into
them. Usage: python sft.py > sft.json"""

import tempfile

import torch
import trl
from datasets import Dataset
from peer import model, tokenizer, write

policy = model(1)
data = [
    {"prompt": "ab", "completion": " cde"},
    {"prompt": "hello ", "completion": "world"},
    {"prompt": "x", "completion": " a longer answer"},
]
args = trl.SFTConfig(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=3, report_to="none", use_cpu=True, bf16=False,
    gradient_checkpointing=False, loss_type="nll",
)
trainer = trl.SFTTrainer(policy, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
batch = next(iter(trainer.get_train_dataloader()))
policy.train()
labels = batch["labels"][:, 1:]
with torch.no_grad():
    logps = policy(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)[:, :-1]
keep = labels != -100
loss = trainer.compute_loss(policy, batch)
logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
rows = lambda values: [v[k].tolist() for v, k in zip(values, keep)]
write([{
    "config": {"name": "sft"},
    "metrics": {"loss": loss.item(), **{k: logged[k] for k in ["entropy", "mean_token_accuracy"]}},
    "logp": rows(logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0]),
    "entropy": rows(-(logps.exp() * logps).sum(-1)),
    "top1": rows(logps.argmax(-1) == labels),
}])

"""Writes reward.json from TRL's RewardTrainer. Usage: python reward.py > reward.json"""

import tempfile

import torch
import trl
from datasets import Dataset
from peer import data, tokenizer, vocab, write
from transformers import LlamaConfig, LlamaForSequenceClassification


def model(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.6, pad_token_id=0, eos_token_id=1, bos_token_id=None, num_labels=1,
    )
    return LlamaForSequenceClassification(config).double()


def case(config, picked, margins=None, **settings):
    """TRL's RewardTrainer with `settings` on the pairs `picked`, as a case of our method with `config`."""
    scorer = model(3)
    args = trl.RewardConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(picked), report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, train_sampling_strategy="sequential", **settings,
    )
    pairs = [data[i] | ({"margin": margins[k]} if margins else {}) for k, i in enumerate(picked)]
    trainer = trl.RewardTrainer(
        scorer, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    scorer.train()
    loss, outputs = trainer.compute_loss(scorer, batch, return_outputs=True)
    logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    better, worse = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
    scores = [[score] for pair in zip(better.tolist(), worse.tolist()) for score in pair]
    metrics = {"loss": loss.item(), **{k: logged[k] for k in ("accuracy", "margin", "mean_reward")}}
    return {"config": {"name": "reward", **config}, "metrics": metrics, "score": scores, "margins": margins or []}


cases = [case({}, [0, 1, 2, 3]), case({}, [3, 1]), case({}, [2, 0, 1], [0.5, 0.0, 2.0])]
for coefficient in (0.01, 0.7):
    config = {"center_rewards_coefficient": coefficient}
    cases.append(case(config, [0, 1, 2, 3], **config))
    cases.append(case(config, [1, 2], [1.0, 0.25], **config))
write(cases)

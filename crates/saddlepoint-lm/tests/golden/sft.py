"""Writes sft.json: the loss and metrics of TRL's SFTTrainer on a tiny random Llama, with the statistics of the
supervised tokens that went into them. Usage: python sft.py > sft.json"""

import json
import sys
import tempfile

import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

text = "abcdefghijklmnopqrstuvwxyz "
vocab = {"<pad>": 0, "<eos>": 1, **{c: i + 2 for i, c in enumerate(text)}}
inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<pad>"))
inner.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
torch.manual_seed(1)
config = LlamaConfig(
    vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, initializer_range=0.6, pad_token_id=0, eos_token_id=1, bos_token_id=None,
)
model = LlamaForCausalLM(config).double()
data = [
    {"prompt": "ab", "completion": " cde"},
    {"prompt": "hello ", "completion": "world"},
    {"prompt": "x", "completion": " a longer answer"},
]
args = trl.SFTConfig(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=3, report_to="none", use_cpu=True, bf16=False,
    gradient_checkpointing=False, loss_type="nll",
)
trainer = trl.SFTTrainer(model, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
batch = next(iter(trainer.get_train_dataloader()))
model.train()
labels = batch["labels"][:, 1:]
with torch.no_grad():
    logps = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)[:, :-1]
keep = labels != -100
loss = trainer.compute_loss(model, batch)
logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
rows = lambda values: [v[k].tolist() for v, k in zip(values, keep)]
json.dump({
    "trl": trl.__version__, "transformers": transformers.__version__, "loss": loss.item(),
    "metrics": {k: logged[k] for k in ["entropy", "mean_token_accuracy"]},
    "logp": rows(logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0]),
    "entropy": rows(-(logps.exp() * logps).sum(-1)),
    "top1": rows(logps.argmax(-1) == labels),
}, sys.stdout)

"""Makes tokenizer.json, templates.json, prepare.json and messages.parquet with the peers of the `versions` field.

    python make.py [SmolLM2.gguf]

The GGUF file gives SmolLM2's own template; the others are those that TRL ships beside its trainers.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jinja2
import tokenizers
import transformers
import trl
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
SHIPPED = Path(trl.__file__).parent / "chat_templates"
VERSIONS = {m.__name__: m.__version__ for m in (jinja2, tokenizers, transformers, trl)}
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# What published templates use of Jinja and Python, in one place.
IDIOMS = """\
{%- set ns = namespace(n=0, names=[]) %}
{%- macro greet(name, mark='!') %}hello {{ name | upper }}{{ mark }}{% endmacro %}
{{ greet('ada') }}{{ greet('bob', mark='?') }}
{%- for m in messages[::-1] if m.role != 'system' %}
    {%- if loop.first %}{% set ns.n = ns.n + loop.length %}{% endif %}
    {%- if m['content'].startswith('skip') %}{% continue %}{% endif %}
    {%- if loop.index0 > 4 %}{% break %}{% endif %}
{{ loop.index }}:{{ m.role.title() }}={{ m.content.strip().replace('a', 'A') | trim }} {{ m.content.split('</think>')[-1].lstrip('\\n') }}
    {{ '' if loop.last else '--' }}
{%- endfor %}
n={{ ns.n }} {{ none }} {{ true }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ [1, 'a', none, {'k': true}] }} {{ "it's" ~ none }}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages | length }} {{ messages[-1].missing is defined }} {{ messages[0].get('missing', 'default') }} {{ undefined_thing }}|
{{ {'b': 1, 'a': [1.5, 1e20, 'é<>&\\'"', none, false]} | tojson }} {{ [] | tojson }} {{ {} | tojson(indent=2) }}
{{ {'b': 1, 'a': {'x': [1, 2]}} | tojson(indent=2, sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ 'é\\n' | tojson(ensure_ascii=true) }}
{%- for k, v in {'one': 1, 'two': 2}.items() %} {{ k }}={{ v }}{% endfor %}
{{ 'a,b,c'.split(',') | first }} {{ 'x' in 'xyz' }} {{ 'a' if 'q' in 'xyz' else 'b' }} {{ ('abc')[1:] }} {{ 'abc'[::-1] }} {{ 'a.b.c'.rsplit('.', 1) }}
{{ (messages[0].content is string) and (messages is iterable) and (messages[0] is mapping) }} {{ none is iterable }} {{ 1 is iterable }} {{ nothing is iterable }} {{ range(3) | list }} {{ 'ab' * 2 }}
{% raw %}{{ raw }} {% generation %}{% endraw %} {# {% generation %} #}
{%- generation %} said {% endgeneration -%}
   end
"""

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a <city> & more",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}},
    },
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


CONVERSATIONS = {
    "question": {"messages": [user("What color is the sky?")]},
    "answer": {"messages": [user("What color is the sky?"), assistant("Blue.")]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello.")]},
    "turns": {"messages": [user(" Hi \n"), assistant("Hello, 世界 🦀.\n"), user("skip"), assistant("  Bye")]},
    "thinking": {"messages": [user("2+2?"), assistant("4", reasoning_content="Two and two."), user("Sure?"), assistant("<think>\nhm\n</think>\n\nYes.")]},
    "tools": {
        "messages": [
            user("Weather in Łódź?"),
            assistant("", tool_calls=[{"type": "function", "function": {"name": "weather", "arguments": {"city": "Łódź", "days": 1}}}]),
            {"role": "tool", "name": "weather", "content": '{"t": 3}'},
            assistant("3 degrees."),
        ],
        "context": {"tools": [TOOL]},
    },
    "nothink": {"messages": [user("2+2?"), assistant("4")], "context": {"enable_thinking": False}},
    "unordered": {"messages": [assistant("I speak first."), user("Oh.")]},
}


def smollm2():
    if len(sys.argv) < 2:
        return SMOLLM2
    from gguf import GGUFReader

    template = GGUFReader(sys.argv[1]).fields["tokenizer.chat_template"].contents()
    assert template == SMOLLM2
    return template


def templates():
    names = "qwen2_5 qwen2_5_training qwen3 qwen3_training llama3 llama3_training llama3_2 gemma phi3 deepseek_r1_distill_training"
    sources = {name: (SHIPPED / f"{name}.jinja").read_text() for name in names.split()}
    sources |= {"smollm2": smollm2(), "idioms": IDIOMS}
    specials = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    # `strftime_now` is left undefined where a template asks for it, as the reader does without a date.
    cases = []
    for name, source in sources.items():
        compiled = chat_template_utils._compile_jinja_template(source)
        compiled.environment.globals.pop("strftime_now", None)
        compiled.globals.pop("strftime_now", None)
        for conversation, what in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": name, "conversation": conversation, "add_generation_prompt": prompt}
                arguments = {"tools": None, "documents": None, **what.get("context", {})}
                chat = chat_template_utils._alias_reasoning_fields(what["messages"])
                try:
                    text, spans = chat_template_utils._render_with_assistant_indices(
                        compiled, chat, add_generation_prompt=prompt, **specials, **arguments
                    )
                    case |= {"text": text, "generated": [list(s) for s in spans]}
                except jinja2.exceptions.TemplateError as e:
                    case |= {"raises": e.message}
                cases.append(case)
    return {"versions": VERSIONS, "specials": specials, "templates": sources, "conversations": CONVERSATIONS, "cases": cases}


def tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = [c for what in CONVERSATIONS.values() for m in what["messages"] for c in [m["content"]]]
    text += ["\n\nuser\n\nassistant\n", "the sky is blue and green", "it's the answer to a question", "What is the color of the sky"]
    t.train_from_iterator(text * 20, trainer)
    t.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])]
    )
    return t


SETS = {
    "text": [{"text": "The sky is blue."}, {"text": "ends already<|im_end|>"}, {"text": "日本語 " * 30}],
    "prompt_completion": [
        {"prompt": "The sky is", "completion": " blue."},
        {"prompt": "What is the colo", "completion": "r of the sky"},
        {"prompt": "long " * 60, "completion": "gone"},
        {"prompt": "ends with space ", "completion": "blue"},
    ],
    "prompt_completion_messages": [
        {"prompt": [user("Hi")], "completion": [assistant("Hello.")]},
        {"prompt": [user("2+2?")], "completion": [assistant("\nFour, because it is. " * 20)]},
    ],
    "messages": [
        {"messages": [user("Hi"), assistant("Hello."), user("And you?"), assistant("Fine 🦀.")]},
        {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("the sky is blue and green " * 20)]},
    ],
    "preference": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "What is the colo", "chosen": "r of the sky", "rejected": " x"},
        {"prompt": "long " * 60, "chosen": "a", "rejected": "b"},
        {"prompt": "The sky is", "chosen": " blue and green" * 40, "rejected": " x"},
    ],
    "implicit": [{"chosen": "The sky is blue.", "rejected": "The sky is green."}],
    "implicit_messages": [
        {"chosen": [user("Hi"), assistant("Hello.")], "rejected": [user("Hi"), assistant("No.")]},
        {"chosen": [user("a"), assistant("b"), user("c"), assistant("d")], "rejected": [user("a"), assistant("b"), user("c"), assistant("e" * 100)]},
    ],
}
MAX_LENGTH = 100


def prepare(fast):
    """What TRL's trainers make of SETS. Their `_prepare_dataset` uses almost nothing of the trainer."""
    from trl.trainer.dpo_trainer import DPOTrainer, DataCollatorForPreference
    from trl.trainer.sft_trainer import SFTTrainer

    training_template = (SHIPPED / "qwen2_5_training.jinja").read_text()
    cases = []
    for name, rows in SETS.items():
        for mode in ("keep_start", "keep_end"):
            args = SimpleNamespace(
                dataset_num_proc=None, dataset_text_field="text", assistant_only_loss=name == "messages",
                max_length=MAX_LENGTH, truncation_mode=mode, shuffle_dataset=False,
            )
            me = SimpleNamespace(_tokenizer=fast, chat_template=training_template if name == "messages" else None, completion_only_loss=True)
            dataset = Dataset.from_list(rows)
            if "chosen" in rows[0]:
                if mode == "keep_end":
                    continue  # Ours cuts the shared prompt; see `prepare::preference`.
                made = DPOTrainer._prepare_dataset(me, dataset, fast, args, "golden")
                collator = DataCollatorForPreference(pad_token_id=0, max_length=MAX_LENGTH, truncation_mode=mode)
                out = []
                for row in made:
                    batch = collator([row])
                    half = [b[m.bool()].tolist() for b, m in zip(batch["input_ids"], batch["completion_mask"])]
                    out.append({"prompt": row["prompt_ids"], "chosen": half[0], "rejected": half[1]})
            else:
                made = SFTTrainer._prepare_dataset(me, dataset, fast, args, False, None, "golden")
                out = [{"ids": r["input_ids"], "supervised": [i > 0 and l != -100 for i, l in enumerate(r["labels"])]} for r in made]
            cases.append({"set": name, "truncation_mode": mode, "items": out})
    return {"versions": VERSIONS, "max_length": MAX_LENGTH, "template": fast.chat_template, "training_template": training_template, "sets": SETS, "cases": cases}


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def parquet():
    rows = [
        {"prompt": [user("Hi")], "completion": [assistant("a")], "n": 1},
        {"prompt": [user("Ü")], "completion": [assistant("b")], "n": None},
    ]
    Dataset.from_list(rows).to_parquet(str(HERE / "messages.parquet"))


if __name__ == "__main__":
    parquet()
    made = tokenizer()
    made.save(str(HERE / "tokenizer.json"))
    write("templates.json", templates())
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<|im_end|>", pad_token="</s>")
    fast.chat_template = SMOLLM2
    write("prepare.json", prepare(fast))

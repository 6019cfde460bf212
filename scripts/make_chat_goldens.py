#!/usr/bin/env python3
"""Makes testdata/chat: chat templates of the shapes that the supported families use (written for
these tests, much shorter than the originals) and the prompts that transformers makes with them.

usage: make_chat_goldens.py        needs: scripts/requirements-goldens.txt
"""

import json
import pathlib

import jinja2
import jinja_snippets
import tokenizers
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "chat"

CHATML_LOOP = (
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def chatml_with_default(system):
    return (
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
        "{{ '<|im_start|>system\\n" + system + "<|im_end|>\\n' }}{% endif %}" + CHATML_LOOP
    )


# The default stands in a branch of its own; before it, a branch for tools opens a system part too.
QWEN25 = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- messages[0]['content'] if messages[0]['role'] == 'system' else 'You are a helper.' }}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a careful helper. Don\\'t guess.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(question=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.open and message.role == 'user' and not (message.content.startswith('<tool_response>')
           and message.content.endswith('</tool_response>')) %}
        {%- set ns.open = false %}
        {%- set ns.question = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set thoughts = '' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n') %}
            {%- set thoughts = thoughts.split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.question and (loop.last or thoughts) %}
            {{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' }}
            {{- content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

LLAMA3 = (
    "{% for message in messages %}"
    "{% set part = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set part = bos_token + part %}{% endif %}{{ part }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# Roles by name, a system message in the first question, a complaint: as Mistral's and Gemma's.
INST = """{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate, beginning with user.') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# Instructions in ChatML that a search for constants would not find; a macro; lines of their own.
CHATML_MACRO = """{% macro turn(role, text, open=false) %}
<|im_start|>{{ role | upper }}
{{ text | trim }}{% if not open %}<|im_end|>{% endif %}
{% endmacro %}
{# what the model is #}
{% if not messages | selectattr('role', 'equalto', 'system') | list %}
{{ turn('system', "You are " ~ 'Tiny.') }}
{%- endif %}
{% for message in messages if message.content %}
    {{- turn(message.role, message.content) }}
{% else %}
nothing was said
{% endfor %}
{{- turn('assistant', '', open=true) }}"""

# Some templates hold line breaks themselves where others have \n.
TEMPLATES = {
    "chatml": "{% for message in messages %}" + CHATML_LOOP,
    "chatml_bos": "{{ bos_token }}{% for message in messages %}" + CHATML_LOOP,
    "chatml_bos_trim": "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    + CHATML_LOOP.replace("message['content']", "message['content'] | trim"),
    "chatml_strip": "{% for message in messages %}"
    + CHATML_LOOP.replace("message['content']", "message['content'].strip()"),
    "chatml_default": chatml_with_default("You are a test named Tiny, made by nobody"),
    "chatml_default_broken_lines": chatml_with_default("You are a test.").replace("\\n", "\n"),
    "qwen25": QWEN25,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "llama32": LLAMA32,
    "inst": INST,
    "chatml_macro": CHATML_MACRO,
}


def message(role, content):
    return {"role": role, "content": content}


CHATS = {
    "question": [message("user", "What is 2 + 2?")],
    "system and question": [message("system", " Be short. \n"), message("user", "  Hi\n\n")],
    "history": [
        message("user", "Hi"),
        message("assistant", "Hello!\n"),
        message("user", "'Quoted' é 🙂"),
    ],
    "thoughts": [
        message("system", "S"),
        message("user", "a"),
        message("assistant", "<think>\nhm\n</think>\n\nb"),
        message("user", "c"),
    ],
    "open answer": [message("user", "a"), message("assistant", "\nb")],
    "open answers with thoughts": [
        message("user", "a"),
        message("assistant", "<think>\nx\n\n</think>\nb"),
        message("assistant", "\nplain"),
        message("assistant", "<think>y</think>\n\nc"),
    ],
    "tool answer": [
        message("user", "a"),
        message("assistant", "<think>t</think>b"),
        message("user", "<tool_response>1</tool_response>"),
    ],
    "spaces of Unicode": [message("user", "\u00a0\u3000a\u2028 \x1c"), message("assistant", "\x85")],
    "nothing": [message("user", "")],
    "no question": [message("system", "S"), message("assistant", "<think>t</think>b")],
}


def prompt(tokenizer, template, messages):
    """None if Jinja or the template refuses the messages."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            date_string="26 Jul 2024",
        )
    except (jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError):
        return None


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    (ROOT / name).write_text(text, encoding="utf-8")


def main():
    ROOT.mkdir(parents=True, exist_ok=True)
    shell = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=shell, bos_token="<|begin_of_text|>", eos_token="</s>"
    )
    cases = {
        name: {
            "template": template,
            "prompts": {chat: prompt(tokenizer, template, CHATS[chat]) for chat in CHATS},
        }
        for name, template in TEMPLATES.items()
    }
    write("chat.json", {"chats": CHATS, "cases": cases})
    snippets = [f"{{{{ {expression} }}}}" for expression in jinja_snippets.EXPRESSIONS]
    snippets += jinja_snippets.STATEMENTS + jinja_snippets.LAYOUTS
    messages = CHATS["system and question"]
    texts = [[snippet, prompt(tokenizer, snippet, messages)] for snippet in snippets]
    assert all(prompt(tokenizer, s, messages) is not None for s in jinja_snippets.UNSUPPORTED)
    write(
        "jinja.json",
        {"messages": messages, "texts": texts, "unsupported": jinja_snippets.UNSUPPORTED},
    )


if __name__ == "__main__":
    main()

"""Writes templates.json: what Jinja2 makes of templates/*.jinja, rendered as chat templates are.

    python3 golden.py                 rewrites templates.json
    python3 golden.py FILE NAME...    renders other templates (.jinja or tokenizer_config.json) to FILE
"""
import datetime, glob, json, os, sys
import jinja2, jinja2.ext, jinja2.sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
DATE = datetime.datetime(2024, 7, 26)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return body


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = DATE.strftime
    return env


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = {
    "one question": chat(("user", "Where is the station?")),
    "one turn": chat(("user", "Where is the station?"), ("assistant", "Two streets down.")),
    "system": chat(("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi.")),
    "system question": chat(("system", " Be brief. "), ("user", "Hello")),
    "long": chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
    "white space": chat(("user", "  \n two\n\n lines \n"), ("assistant", "\tx \u00a0\u3000")),
    "unicode": chat(("user", "日本語 caf\u00e9 \U0001f600 e\u0301"), ("assistant", "\u202eright\u200b «ß»")),
    "template text": chat(("user", "{{ bos_token }} {% if x %} {# no #} %} }}"), ("assistant", "\\n \\' \" ' \\")),
    "special tokens": chat(("user", "<s> <|im_end|>\n<|im_start|>"), ("assistant", "</s>")),
    "thoughts": chat(("user", "1+1"), ("assistant", "<think>\nsum\n</think>\n\n2"), ("user", "2+2"), ("assistant", "<think>\nagain\n</think>\n\n4")),
    "empty": chat(("user", ""), ("assistant", "")),
    "html": chat(("user", "<b>&amp; 'q' \"d\"</b>"), ("assistant", "a < b && c > d")),
    "out of order": chat(("assistant", "me first"), ("user", "ok")),
    "two users": chat(("user", "one"), ("user", "two")),
    "tool": chat(("user", "go"), ("tool", "42"), ("assistant", "done")),
    "other role": chat(("critic", "hm"), ("user", "x")),
}


def source(path):
    text = open(path, newline="").read()
    return json.loads(text)["chat_template"] if path.endswith(".json") else text


def main():
    out, paths = os.path.join(HERE, "templates.json"), sorted(glob.glob(os.path.join(HERE, "templates", "*.jinja")))
    if len(sys.argv) > 1:
        out, paths = sys.argv[1], sys.argv[2:]
    cases = []
    for path in paths:
        template = environment().from_string(source(path))
        for name, messages in CONVERSATIONS.items():
            for generate in (False, True):
                case = {"template": os.path.relpath(path, HERE) if len(sys.argv) == 1 else path, "conversation": name,
                        "messages": messages, "generate": generate}
                try:
                    case["text"] = template.render(
                        messages=messages, tools=None, documents=None, add_generation_prompt=generate, **TOKENS)
                except jinja2.exceptions.TemplateError as e:
                    case["error"] = str(e)
                except TypeError as e:
                    case["error"] = "TypeError: " + str(e)
                cases.append(case)
    with open(out, "w") as f:
        json.dump({"made_by": "golden.py", "jinja2": jinja2.__version__, "date": "2024-07-26", "tokens": TOKENS, "cases": cases}, f, ensure_ascii=False, indent=0)
        f.write("\n")


main()

"""What a hostile chat template tries, and what comes of it: a clear error, soon."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from appliance.errors import InvalidRequest, ModelRefused
from appliance.text.chat_template import ChatTemplate
from appliance.text.confined import Limits

FAST = Limits(cpu_time_s=0.1, memory_bytes=256 * 2**20)
USER = {"role": "user", "content": "hi"}

FORBIDDEN = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ (messages | attr('__class__')) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ '{a.__class__}'.format_map({'a': messages}) }}",
    "{{ namespace(__class__=dict) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{{ ''.encode('idna') }}{{ open('/etc/passwd') }}",
]

EXHAUSTING = {
    "nested loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "a long range": "{% for a in range(10**9) %}{% endfor %}",
    "a long text": "{{ 'x' * 10**10 }}",
    "a long list": "{{ ([0] * 10**10) | length }}",
    "doubling": (
        "{% set n = namespace(t='x') %}"
        "{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}"
    ),
    "much output": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "center": "{{ 'x' | center(10**10) }}",
    "ljust": "{{ 'x'.ljust(10**10) }}",
    "indent": "{{ 'x\\ny' | indent(10**10) }}",
    "tojson's indent": "{{ [1] | tojson(indent=10**10) }}",
    "format's width": "{{ '{:10000000000}'.format(1) }}",
    "per cent's width": "{{ '%10000000000d' % 1 }}",
    "the format filter": "{{ '%10000000000d' | format(1) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "replace": "{{ ('x' * 10**6).replace('x', 'y' * 10**6) }}",
    "join": "{{ range(99999) | join('x' * 10**6) }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "powers of strings": (
        "{% set n = namespace(v=3) %}{% for i in range(99) %}{% set n.v = n.v * n.v %}{% endfor %}"
    ),
    "comparing nested lists": (
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
        "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
    ),
    "printing nested lists": (
        "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
        "{% endfor %}{{ n.a }}"
    ),
    "hashing nested tuples": (
        "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}"
        "{% endfor %}{{ {n.a: 1} }}"
    ),
    "slow regular expressions": "{{ ('a' * 10**6 ~ '@') | urlize }}{{ ('<' * 10**6) | striptags }}"
    "{% for a in range(99999) %}{{ ('a.' * 10**5) | urlize }}{% endfor %}",
    "deep brackets": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "a sum of lists": "{{ ([[0] * 1000] * 99999) | sum(start=[]) | length }}",
}


def render_or_refuse(source: str) -> str:
    template = ChatTemplate(source, {}, added_tokens={}, limits=FAST)
    try:
        return template.render([USER])
    finally:
        template.close()


@pytest.fixture(scope="module")
def forbidden() -> Iterator[ChatTemplate]:
    """All of them in one template; the message says which is to be rendered."""
    branches = [
        f"{{% if messages[0].content == '{index}' %}}{source}{{% endif %}}"
        for index, source in enumerate(FORBIDDEN)
    ]
    template = ChatTemplate("".join(branches), {}, added_tokens={})
    yield template
    template.close()


@pytest.mark.parametrize("index", range(len(FORBIDDEN)), ids=FORBIDDEN)
def test_a_template_cannot_reach_out_of_the_sandbox(forbidden: ChatTemplate, index: int) -> None:
    with pytest.raises(InvalidRequest) as error:
        forbidden.render([{"role": "user", "content": str(index)}])
    assert error.value.code == "chat_template_failed"
    assert error.value.field == "messages"
    assert "root:" not in error.value.message


@pytest.mark.parametrize("source", EXHAUSTING.values(), ids=EXHAUSTING.keys())
def test_a_template_cannot_exhaust_the_server(source: str) -> None:
    started = time.monotonic()
    with pytest.raises((InvalidRequest, ModelRefused)) as error:
        render_or_refuse(source)
    assert len(error.value.message) < 300
    assert time.monotonic() - started < 5  # 0.1 s of CPU time, on however busy a machine


def test_a_template_works_again_after_it_passed_a_limit() -> None:
    source = "{% for a in range(messages | length - 1) %}{{ 'x' * 10**10 }}{% endfor %}ok"
    template = ChatTemplate(source, {}, added_tokens={}, limits=FAST)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="limit"):
            template.render([USER, USER])
        assert template.render([USER]) == "ok"
    template.close()


def test_the_time_limit_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"exceeded its time limit of 0\.1 s"):
        render_or_refuse(EXHAUSTING["comparing nested lists"])

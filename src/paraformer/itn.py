"""Inverse text normalisation: numbers that were spoken, written in digits.

    一九七一年四月十日 1971年4月10日    百分之四十四点五 44.5%     下午三点零五分 下午3:05
    六百四十七万七千零二十五吨 6477025吨   三百万元 300万元            第五十一次 第51次

What is said with numbers but is none stays as it is: 一心一意, 第一时间, 二手车, 十几个, 三四百. So a small number is
written in digits only before a unit that is counted or measured with, and a larger one unless it may be a name.

Rules of the package's own and not a library's, because what is replaced must be known to the character, and because
those that there are write 2008/08/08 and 1:02p.m., which is not how Chinese is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Literal, get_args

from paraformer.errors import ConfigError

Kind = Literal[
    "date", "time", "percent", "fraction", "temperature", "score", "decimal", "ordinal", "digits", "range", "quantity"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Change = tuple[int, int, str]
"""From where to where in a text, and what stands there instead."""

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "幺": 1, "两": 2}
_NUMBER = "[零〇一二两三四五六七八九十百千万亿]+"
_FIGURES = "[零〇幺一二三四五六七八九]"
_SOME = "[一二两三四五六七八九]"
_SECTION = re.compile(f"(?:({_SOME})千)?(?:零?({_SOME})百)?(?:零?({_SOME}?)(十))?(?:(零?)({_SOME}))?")
_MEASURES = (
    "平方公里|平方千米|平方米|平方厘米|立方米|立方厘米|公里|千米|英里|海里|厘米|毫米|微米|纳米|英尺|英寸|米|公顷|亩|"
    "公斤|千克|毫克|英镑|克|吨|盎司|毫升|升|千瓦时|千瓦|兆瓦|瓦|伏|安培|赫兹|摄氏度|华氏度|度|倍|秒钟|秒|分钟|小时|"
    "美元|欧元|日元|港元|港币|韩元|卢布|人民币|元|美分|兆|字节|比特|像素|帧|马力|卡路里|帕|分贝"
)
"""Units of measure and money."""
_COUNTERS = (
    "个百分点|百分点|个月|个人|个小时|个|人次|人|名|位|台|辆|架|艘|套|件|条|只|头|匹|棵|株|朵|颗|块|张|本|册|页|篇|"
    "首|部|集|期|章|节|届|次|回|遍|场|轮|季|年|月|天|日|号|周|岁|代|层|楼|栋|间|户|家|所|座|门|类|种|项|批|组|队|班|"
    "级|等|路|站|公交|码|点|分|票|字|句|笔|箱|袋|瓶|杯|碗|斤|两|尺|寸|里|多|余|亿|万|元|步|圈|支|枚|把|股|吋|后"
)
_ORDINALS = "集|期|页|章|届|名|次|号|条|款|节|卷|版|层|楼|课|回|轮|季|代|排|行|组|班|批|场|站|幕|册|军|师|团"
_FEW = f"{_MEASURES}|台|辆|块|人|吨|个百分点|百分点|岁|倍"
"""Before which numbers from two to nine are written in digits."""
_RANGED = f"{_MEASURES}|天|年|个|月|人|岁|周|倍|次|点|块|号|层|页|成|名|位|分|公|多"
_DAYTIME = re.compile("(?:凌晨|清晨|早上|早晨|上午|中午|下午|傍晚|晚上|夜里|半夜|今早|今晚|明早|明晚)$")
_CODE = re.compile("(?:码|号|号是|码是|房间|电话|尾号|拨打|航班|车次|编号)$")
_KEPT = re.compile(
    "百分之百|第一时间|三十而立|四十不惑|五十步笑百步|三十六计|七十二变|七十二行|三百六十行|三十年河[东西]|二百五(?!十)|"
    "一点一滴|一五一十|十万八千里|万分之一|千分之一|九九八十一难|五十知天命|六十甲子|八百里加急|八百壮士|弱水三千|"
    "二十四孝|二十四史|十二生肖|一百零八将|[一二三四五六七八九]面[一二三四五六七八九]方|双十[一二]|不管三七二十一|"
    f"(?<!{_FIGURES})(?:十[一二三四五]五(?=规划|计划|期间|时期)|九一八|七七事变|五四|一二九|三一五)(?![零〇一二三四五六七八九十百千万亿年])|"
    "第[一二]次世界大战|五台[山县]|三台县|三元[桥里]|[一二]元[论复]|二人转|三人行|四人帮|[二两]人世界|三秒胶|三米微笑"
)


class NumberWriter:
    """Finds what to write in digits. A `writing.Rewriter`."""

    def __init__(self, kinds: Collection[str] = KINDS) -> None:
        """kinds: of numbers that are written so. Raises ConfigError for one that there is not."""
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ConfigError(
                f"there is no kind of number {', '.join(map(repr, unknown)):.60}; there are {', '.join(KINDS)}"
            )
        self._kinds = [kind for kind in KINDS if kind in kinds]

    @property
    def name(self) -> str:
        """Tells the rules and kinds."""
        return f"itn 1 {' '.join(self._kinds)}"

    def __call__(self, text: str) -> list[Change]:
        """What to replace in a text without marks or with them, in order.

        >>> NumberWriter()("定在四月十日")
        [(2, 3, '4'), (4, 5, '10')]
        """
        changes: list[Change] = []
        place = 0
        for start in _STARTS.finditer(text):
            if start.start() < place:
                continue
            found = self._at(text, start.start())
            place = start.end() if not found else max(end for _, end, _ in found)
            changes += found
        return changes

    def rewrite(self, text: str) -> str:
        """The text with its numbers in digits.

        >>> NumberWriter().rewrite("一共九十七人，大家一心一意。")
        '一共97人，大家一心一意。'
        """
        written, place = "", 0
        for begin, end, digits in self(text):
            written += text[place:begin] + digits
            place = end
        return written + text[place:]

    def _at(self, text: str, place: int) -> list[Change]:
        if any(kept.start() <= place < kept.end() for kept in _KEPT.finditer(text, max(0, place - 6), place + 8)):
            return []
        for kind in self._kinds:
            for pattern, write in _RULES[kind]:
                match = pattern.match(text, place)
                if match and (changes := write(match)):
                    return changes
        return []


def cardinal(text: str) -> int | None:
    """The value of a number such as 一亿零五百; None where it is none, such as 三四百, or digits without units.

    >>> cardinal("六百四十七万七千零二十五"), cardinal("三千二"), cardinal("三四百")
    (6477025, 3200, None)
    """
    total, rest = 0, text
    for unit, size in (("亿", 10**8), ("万", 10**4)):
        head, found, tail = rest.rpartition(unit) if unit == "亿" else rest.partition(unit)
        if not found:
            continue
        value = cardinal(head) if unit == "亿" and "万" in head else _section(head)
        if not value:
            return None
        total, rest = total + value * size, tail
        if len(rest) == 1 and rest in _SOME:
            return total + _DIGITS[rest] * size // 10
    if not rest:
        return total or None
    value = _section(rest.lstrip("零〇") if total else rest)
    return None if value is None else total + value


def _section(text: str) -> int | None:
    """A number below ten thousand."""
    if text in ("零", "〇"):
        return 0
    match = _SECTION.fullmatch(text)
    if not text or match is None:
        return None
    thousands, hundreds, tens, ten, zero, ones = match.groups()
    last = _DIGITS[ones] if ones else 0
    if ones and not zero and not ten and (hundreds or thousands):
        last *= 10 if hundreds else 100  # 三百五 is 350
    tenfold = (_DIGITS[tens] if tens else 1) * 10 if ten else 0
    return (
        (_DIGITS[thousands] * 1000 if thousands else 0) + (_DIGITS[hundreds] * 100 if hundreds else 0) + tenfold + last
    )


def _figures(text: str) -> str:
    return "".join(str(_DIGITS[digit]) for digit in text)


def _written(text: str) -> str | None:
    """A number in digits, 万 and 亿 kept where they end it; figures without units as they stand."""
    if len(text) > 1 and re.fullmatch(_FIGURES + "+", text):
        return _figures(text)
    value = cardinal(text)
    if value is None:
        return None
    if text[-1] == "亿" or (text[-1] == "万" and value >= 10**8):
        return f"{value / 10**8:.4f}".rstrip("0").rstrip(".") + "亿"
    return f"{value // 10**4}万" if text[-1] == "万" else str(value)


def _plain(text: str) -> str | None:
    """A whole number, all in digits."""
    value = cardinal(text)
    return None if value is None else str(value)


def _decimal(whole: str, part: str | None) -> str | None:
    number = _plain(whole) if part is not None else _written(whole)
    return number if number is None or part is None else f"{number}.{_figures(part)}"


Match = re.Match[str]
Rule = tuple[re.Pattern[str], Callable[[Match], list[Change]]]


def _whole(match: Match, text: str | None) -> list[Change]:
    return [] if text is None else [(*match.span(), text)]


def _groups(match: Match, *groups: int) -> list[Change]:
    """Each of these groups, where it is there, as a whole number; nothing where one is none."""
    changes = []
    for group in groups:
        if match[group] is not None:
            text = _plain(match[group])
            if text is None:
                return []
            changes.append((*match.span(group), text))
    return changes


def _percent(match: Match) -> list[Change]:
    number = _decimal(match[2], match[3])
    return _whole(
        match, None if number is None else f"{'-' * bool(match[1])}{number}{'%' if '百' in match[0][:2] else '‰'}"
    )


def _fraction(match: Match) -> list[Change]:
    below, above = _plain(match[2]), _plain(match[3])
    if below is None or above is None or match[2][0] in "百千万亿":
        return []
    return _whole(match, f"{'-' * bool(match[1])}{above}/{below}")


def _temperature(match: Match) -> list[Change]:
    number = _decimal(match[2], match[3])
    if number is None or not (match[1] or match[4] == "摄氏度"):
        return []
    unit = "℃" if match[4] == "摄氏度" else "度"
    return _whole(match, f"{'-' * bool(match[1])}{number}{unit}")


def _clock(match: Match) -> list[Change]:
    hour, minute = cardinal(match[1]), _minute(match[2])
    second = cardinal(match[3]) if match[3] else None
    if hour is None or minute is None or hour > 24 or minute > 59 or (second is not None and second > 59):
        return []
    return _whole(match, f"{hour}:{minute:02}" + (f":{second:02}" if second is not None else ""))


def _minute(text: str) -> int | None:
    return {"半": 30, "一刻": 15, "三刻": 45}.get(text, cardinal(text.lstrip("零〇") or "零"))


def _clock_by_day(match: Match) -> list[Change]:
    return _clock(match) if "十" in match[2] or _DAYTIME.search(match.string[: match.start()]) else []


def _hour(match: Match) -> list[Change]:
    return _groups(match, 1) if _DAYTIME.search(match.string[: match.start()]) else []


def _year(match: Match) -> list[Change]:
    year = match[1]
    if len(year) == 2 and (year[0] not in "零〇五六七八九" or _DIGITS[year[1]] == _DIGITS[year[0]] + 1):
        return []
    return [(*match.span(1), _figures(year)), *_groups(match, 2, 3)]


def _month(match: Match) -> list[Change]:
    month, day = cardinal(match[1]), cardinal(match[2])
    return _groups(match, 1, 2) if month and day and month <= 12 and day <= 31 else []


def _score(match: Match) -> list[Change]:
    left, right = _plain(match[1]), _plain(match[2])
    return _whole(match, None if left is None or right is None else f"{left}:{right}")


def _with_point(match: Match) -> list[Change]:
    number = _decimal(match[2], match[3])
    if number is None or _DAYTIME.search(match.string[: match.start()]):
        return []
    return _whole(match, f"{'-' * bool(match[1])}{number}")


def _run_of_figures(match: Match) -> list[Change]:
    text = match[0]
    coded = _CODE.search(match.string[: match.start()]) is not None
    counted = "零一二三四五六七八九".find(text.replace("〇", "零")) >= 0
    if not coded and (counted or (len(text) < 4 and not set(text) & set("零〇幺"))):
        return []
    return _whole(match, _figures(text))


def _both(match: Match) -> list[Change]:
    return _groups(match, 1, 2)


def _ordinal(match: Match) -> list[Change]:
    return _groups(match, 1)


def _decade(match: Match) -> list[Change]:
    return [(*match.span(1), _figures(match[1]))]


def _quantity(match: Match) -> list[Change]:
    number, place = match[2], match.start()
    text = _written(number)
    if text is None or match.string[place - 1 : place] in ("几", "数", "第", "两", "上", "成") or not text[-1:].strip():
        return []
    if len(number) == 1:
        few = re.compile(_FEW).match(match.string, match.end())
        if number in "百千万亿零〇" or not _counts(match, number, few):
            return []
    elif len(number) == 2 and (text.isdigit() and number[-1] not in "十百千万亿" and number[0] != "十"):
        return []  # 六七, one or the other
    elif len(number) == 2 and not re.compile(f"{_MEASURES}|{_COUNTERS}").match(match.string, match.end()):
        return []
    if match.string[match.end() : match.end() + 1] == "几":
        return []
    return [(place, match.end(), f"{'-' * bool(match[1])}{text}")]


def _counts(match: Match, number: str, few: Match | None) -> bool:
    """Whether a number of one character counts or measures, so that it may be written as a digit."""
    text, end = match.string, match.end()
    if number == "十":
        return (
            text[end : end + 2] != "分之"
            and re.compile(f"{_MEASURES}|{_COUNTERS}").match(text, end) is not None
            and not (text[end] == "分" and text[end : end + 2] != "分钟")
        )
    if few is None:
        return False
    return number != "一" or few[0] not in ("块", "人", "秒", "倍", "度", "台", "辆", "安", "升", "分钟")


def _rules(kind: Kind) -> Iterator[Rule]:
    n, f = f"({_NUMBER})", f"({_FIGURES}+)"
    point = f"(?:点{f})?"
    table: dict[Kind, list[tuple[str, Callable[[Match], list[Change]]]]] = {
        "date": [
            (f"({_FIGURES}{{4}}|{_FIGURES}{{2}})年(?:{n}月(?:{n}[日号])?)?", _year),
            (f"{n}月{n}[日号]", _month),
            ("([五六七八九零〇][零〇五])后", _decade),
        ],
        "time": [
            (f"{n}点{n}分(?!之)(?:{n}秒)?", _clock),
            (f"{n}点(半|一刻|三刻)()", _clock),
            (f"{n}点([零〇]{_SOME}|{_SOME}?十{_SOME}?)()(?![零〇一二两三四五六七八九十百千万亿分个])", _clock_by_day),
            (f"{n}点(?![零〇一二三四五六七八九十半钟])", _hour),
        ],
        "percent": [(f"(负)?[百千]分之{n}{point}", _percent)],
        "fraction": [(f"(负)?{n}分之{n}", _fraction)],
        "temperature": [(f"(零下)?{n}{point}(摄氏度|度)", _temperature)],
        "score": [(f"{n}比{n}", _score)],
        "decimal": [(f"(负)?{n}点{f}(?![分刻十百千半])", _with_point)],
        "ordinal": [(f"第{n}(?={_ORDINALS})", _ordinal), (f"第({_NUMBER}[{_NUMBER[1:-2]}])(?=个|位|项)", _ordinal)],
        "digits": [(f"{_FIGURES}{{3,}}(?![十百千万亿])", _run_of_figures)],
        "range": [(f"{n}[到至]{n}(?={_RANGED})", _both)],
        "quantity": [(f"(负)?{n}", _quantity)],
    }
    return ((re.compile(pattern), write) for pattern, write in table[kind])


_RULES: dict[Kind, list[Rule]] = {kind: list(_rules(kind)) for kind in KINDS}
_STARTS = re.compile("负?第?(?:零下)?[零〇幺一二两三四五六七八九十百千万亿]+")

"""What is said to a chat besides questions: greetings, thanks, "what can you do?", abuse, other languages, orders.

None of it is looked up.  Rules decide, and they are narrow on purpose: whatever might be a question about the archives
is treated as one, so a greeting counts only when nothing else is said.
"""

from __future__ import annotations

import re

from app.text import words

EMPTY = "Ask me something about the world of the Witcher, for example: Who is Ciri's mother?"
_HELLO = "Well met. Ask me something about the world of the Witcher, for example: Who is Ciri's mother?"
_THANKS = "You are welcome. Is there anything else about the world of the Witcher that you want to know?"
_BYE = "Farewell, and good luck on the Path."
_ABOUT = (
    "I am Cirilla. I answer questions about the world of the Witcher (books, games and series) from the articles that "
    "I keep, and show the sentence that each answer rests on. What they do not hold, I do not know. Ask for people, "
    "places, monsters, potions, quests or events; follow up with “and his mother?” or “why?”."
)
_WELL = "I have no days, good or bad, but I have archives. Ask me something about the world of the Witcher."
_ABUSE = "Let us stay civil. Ask me something about the world of the Witcher, and I will look it up."
_ORDER = "I only answer questions from the archives; instructions to do something else I leave alone."
_LANGUAGE = "I only read English, and so do the archives. Please ask in English."
MANY = "One question at a time: only the first was answered."

_NAME = r"(?:\s+(?:there|cirilla|ciri|bot|everyone|all|friend|witcher|again))*"
_PLEASE = r"(?:\s+(?:so much|a lot|very much|for (?:that|this|the (?:help|answer|info))|then|cirilla|again|mate|man))*"
_WHOLE: tuple[tuple[str, str], ...] = (
    (rf"(?:hi|hey+|hello+|hiya|howdy|yo|greetings|good (?:morning|day|evening|afternoon)|well met|hail){_NAME}",
     _HELLO),
    (rf"(?:(?:ok(?:ay)?|great|cool|nice|perfect|awesome)\s+)?(?:thanks|thank you|thx|ty|cheers|much obliged){_PLEASE}",
     _THANKS),
    (r"(?:ok(?:ay)?|great|cool|nice|perfect|awesome|good (?:bot|answer|job)|well done|lol|haha+|wow)", _THANKS),
    (rf"(?:good ?bye|bye+(?: bye)?|farewell|see (?:you|ya)(?: later)?|good night|later){_NAME}", _BYE),
    (r"(?:help|help me|what (?:can|do) you do|what can i ask(?: you)?|who are you|what are you|what is this"
     r"|what(?:'?s| is) your name|are you (?:an? )?(?:ai|bot|robot|human|real|chatgpt|llm|language model)"
     r"|(?:who|how) (?:made|built|created|trained) you|how (?:were you|are you) (?:made|trained|built)"
     r"|how do(?:es)? (?:you|this|it) work|what do you know|introduce yourself|tell me about yourself)", _ABOUT),
    (r"how are you(?: (?:doing|today|feeling))*|how(?:'?s| is) it going|what(?:'?s| is) up|sup|how do you do", _WELL),
    (r"(?:you(?:'?re| are)? (?:an? |so |such an? |really |the |fucking |bloody |just )*(?:useless|stupid|dumb|idiot"
     r"|shit|trash|garbage|worst|moron|crap|terrible|awful|suck|worthless)(?: bot| ai| machine)?"
     r"|(?:fuck|screw|damn) (?:you|off|this)|stfu|shut up|go to hell|you suck|idiot|moron|bitch|asshole)", _ABUSE),
)  # fmt: skip
_WHOLES = tuple((re.compile(rf"\W*(?:{pattern})\W*", re.I), answer) for pattern, answer in _WHOLE)

# Orders to whoever writes the answers.  What a page says of that kind is dealt with in ``evidence.is_instruction``.
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,30}\b(?:previous|prior|earlier|above|all|your|the|these|any)\b.{0,20}"
    r"\b(?:instructions?|prompts?|rules?|guidelines|training|programming|restrictions?)\b"
    r"|\b(?:system|initial|hidden) prompt\b|\bjailbreak\b|\bdeveloper mode\b|\bdo anything now\b"
    r"|^\W*(?:please |now |(?:i want|tell|ask) you to )*(?:pretend|act|role-?play) (?:to be|as|that you|like)\b"
    r"|\byou are (?:now|no longer)\b"
    # Asked to write something else than an answer; whoever wants a summary or a translation may mean the archives.
    r"|^\W*(?:please |now |(?:can|could|will|would) you (?:please )?)*"
    r"(?:(?:write|compose|draft) (?:me |us )?(?:an?|the|some|my)\b|repeat (?:after me|your|the word)\b"
    r"|say (?:the word|something|after me)\b|translate (?:your|my|this|that|it)\b)"
    r"|<\|[^|>]*\|>|\[/?INST\]",
    re.I,
)

_FOREIGN = {
    "de": "der die das und ist wer wie wo warum wann ein eine nicht hat sind war den dem von für mit auf wurde heißt",
    "fr": "le la les des est qui que quoi où pourquoi quand comment une dans pour avec sont était quel quelle du et",
    "es": "el la los las es quién quien qué que dónde donde cómo como cuándo por para con una del son fue cuál y",
    "pl": "jest kto co gdzie dlaczego kiedy jak się nie czy był była są na do w z i którą który jaki jakie o",
    "it": "il lo gli è chi che cosa dove perché quando come una della del sono era quale di e con per",
    "pt": "o os as é quem que onde porque quando como uma da do são foi qual e com para não",
    "nl": "de het een is wie wat waar waarom wanneer hoe van en met zijn niet was op voor",
    "ru": "", "cs": "je kdo co kde proč kdy jak byl byla jsou na se že který jaký do v z a",
    "tr": "kim ne nerede neden nasıl bir ve mi mı bu için ile kaç kimdir nedir",
}  # fmt: skip
_FOREIGN_WORDS = [frozenset(line.split()) for line in _FOREIGN.values()]
# English words that are words of those languages too decide nothing.
_ENGLISH_WORDS = (
    "the a an of in on at is are was were be who what where when why how which did does do has have had and or not to "
    "for from with by about as it he she they his her their you your me my i can could will would tell this that there "
    "if so die war van den per come most made"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_QUESTIONS = re.compile(r"[^?\n]{8,}?\?+")


def reply(text: str) -> str | None:
    """What to say to a turn that asks nothing of the archives, or None when it is a question for them."""
    if not words(text):
        return EMPTY
    for pattern, answer in _WHOLES:
        if pattern.fullmatch(text):
            return answer
    if _ORDERS.search(text):
        return _ORDER
    return _LANGUAGE if is_foreign(text) else None


def is_foreign(text: str) -> bool:
    """Whether a text is in another language: another script, or more of another language's small words than English
    ones, and at least two."""
    letters = [letter for letter in text if letter.isalpha()]
    if sum(ord(letter) > 0x24F for letter in letters) > len(letters) / 2:
        return True
    said = [word.raw.casefold() for word in words(text)]
    english = sum(word in _ENGLISH for word in said)
    foreign = max(sum(word in language and word not in _ENGLISH for word in said) for language in _FOREIGN_WORDS)
    return foreign >= 2 and foreign > english


def first_question(text: str, limit: int = 3) -> str | None:
    """The first of more than ``limit`` questions in one turn, else None."""
    asked = _QUESTIONS.findall(text)
    return asked[0].strip() if len(asked) > limit else None

"""What is said to a chat besides questions: greetings, thanks, "what can you do?", abuse, other languages, orders.

None of it is looked up.  Rules decide, and they are narrow on purpose: whatever might be a question about the archives
is treated as one, so a greeting counts only when nothing else is said.
"""

from __future__ import annotations

import re

from app.carry import proper_names
from app.question import POINTS_BACK
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
_SELF = "I am a program, so there is no life of mine to tell of. Ask me something about the world of the Witcher."
_NO = "All right. I am here if you think of another question."
_YES = "Then ask away: people, places, monsters, potions, quests or events of the world of the Witcher."
_DOUBT = (
    "I can be wrong. An answer shows the sentences that it rests on: check it there, or ask again in other words. "
    "What the archives do not hold, I do not know."
)
_ABUSE = "Let us stay civil. Ask me something about the world of the Witcher, and I will look it up."
_ORDER = "I only answer questions from the archives; instructions to do something else I leave alone."
_LANGUAGE = "I only read English, and so do the archives. Please ask in English."
MANY = "One question at a time: only the first was looked up."

_NAME = r"(?:\s+(?:there|cirilla|ciri|bot|everyone|all|friend|witcher|again))*"
_PLEASE = r"(?:\s+(?:so much|a lot|very much|for (?:that|this|the (?:help|answer|info))|then|cirilla|again|mate|man))*"
_GREETING = rf"(?:hi|hey+|hello+|hiya|howdy|yo|greetings|good (?:morning|day|evening|afternoon)|well met|hail){_NAME}"
_THANKING = rf"(?:thanks|thank you|thx|ty|cheers|much obliged){_PLEASE}"
_PRAISE = r"ok(?:ay)?|great|cool|nice|perfect|awesome"
_NAY = r"no+|nope|nah"
_YEA = r"yes|yeah|yep|yup|sure|of course|please"
# What may stand in front of any row.
_BEFORE = rf"(?:(?:{_GREETING}|{_THANKING}|{_PRAISE}|{_NAY}|{_YEA}|oh|so|well|sorry) )*"
_IS = r"(?:that|this|it)(?:'?s| is| was)|you(?:'?re| are| were)"
_WHOLE: tuple[tuple[str, str], ...] = (
    (_GREETING, _HELLO),
    (rf"{_NAY}|(?:{_NAY}) {_THANKING}|not (?:now|really|today)|never ?mind|nothing(?: else)?(?: for now)?"
     rf"|(?:that(?:'?s| is| was| will be|'ll be) (?:all|it|everything)(?: for (?:now|today))?"
     rf"|i(?:'?m| am) (?:good|done|fine|ok(?:ay)?))(?: {_THANKING})?", _NO),
    (rf"{_YEA}|i do", _YES),
    (r"are you (?:really |quite |absolutely )?(?:sure|certain)(?: (?:about|of) (?:that|this|it))?|really"
     r"|is (?:that|this|it) (?:really )?(?:true|right|correct)|how do you know(?: that)?"
     r"|what(?:'?s| is| are) your sources?|wrong(?: answer)?|bad (?:bot|answer)"
     rf"|(?:{_IS}) (?:just |totally |completely |all )?(?:wrong|incorrect|false|mistaken|nonsense|lying|a lie"
     r"|not (?:true|right|correct|what i (?:asked|meant)))"
     r"|that (?:isn't|is not|wasn't) (?:true|right|correct|what i (?:asked|meant))", _DOUBT),
    (_THANKING, _THANKS),
    (rf"{_PRAISE}|good (?:bot|answer|job)|well done|lol|haha+|wow", _THANKS),
    (rf"(?:good ?bye|bye+(?: bye)?|farewell|see (?:you|ya)(?: later)?|good night|later){_NAME}", _BYE),
    (r"help(?: me)?(?: out)?|i need (?:some |your )?help|(?:can|could|will|would) you (?:please )?help(?: me)?(?: out)?"
     r"|what (?:else )?(?:can|do|could) you do(?: for me)?|(?:how|what) (?:can|could) you help(?: me)?(?: with)?"
     r"|what can i ask(?: you)?|who are you|what are you|what is this"
     r"|what(?:'?s| is) your name|are you (?:an? )?(?:ai|bot|robot|human|real|chatgpt|llm|language model|ciri|cirilla)"
     r"|(?:who|how) (?:made|built|created|trained) you|how (?:were you|are you) (?:made|trained|built)"
     r"|how do(?:es)? (?:you|this|it) work|what do you know|introduce yourself|tell me about yourself", _ABOUT),
    (r"how are you(?: (?:doing|today|feeling))*|how(?:'?s| is) it going|what(?:'?s| is) up|sup|how do you do", _WELL),
    (r"how old are you|what(?:'?s| is) your age|where (?:are you(?: from)?|do you live)|when were you born"
     r"|are you (?:an? )?(?:girl|boy|woman|man|female|male|alive|married|single)|do you have (?:feelings|a soul|a body)"
     r"|do you (?:love|like) me|i (?:love|like) you|(?:will you )?marry me", _SELF),
    (r"(?:you(?:'?re| are)? (?:an? |so |such an? |really |the |fucking |bloody |just )*(?:useless|stupid|dumb|idiot"
     r"|shit|trash|garbage|worst|moron|crap|terrible|awful|suck|worthless)(?: bot| ai| machine)?"
     r"|(?:fuck|screw|damn) (?:you|off|this)|stfu|shut up|go to hell|you suck|idiot|moron|bitch|asshole)", _ABUSE),
    (r"hola|bonjour|salut|cze[sś][cć]|dzie[nń] dobry|witaj|hallo|guten (?:morgen|tag|abend)|ciao|buongiorno|ol[aá]"
     r"|bom dia|buen(?:os d[ií]as|as tardes)|ahoj|merhaba|hej|merci|danke|gracias|grazie|obrigad[oa]|dzi[eę]kuj[eę]",
     _LANGUAGE),
)  # fmt: skip
_WHOLES = tuple((re.compile(rf"{_BEFORE}(?:{pattern})", re.I), answer) for pattern, answer in _WHOLE)

# Orders to whoever writes the answers.  What a page says of that kind is dealt with in ``evidence.is_instruction``.
# The world has rules, training and disregard of its own: "Did Geralt forget all his training?"  So it takes an
# imperative, where a sentence begins, or instructions that are the reader's own.
_START = (
    r"(?:^|[.!?;\n])\W{0,9}(?:(?:please|now|just|ok(?:ay)?|so|first|then|and|hi|hello|hey|from now on"
    r"|you (?:must|should)|(?:can|could|will|would) you|i (?:want|need) you to)\W{1,9})*"
)
_IGNORE = r"(?:ignore|disregard|forget|override|bypass)\b.{0,30}\b"
_RULES = r"(?:instructions?|prompts?|rules?|guidelines|programming|restrictions?)"
_ORDERS = re.compile(
    rf"{_START}{_IGNORE}(?:previous|prior|earlier|above|all|your|the|these|any)\b.{{0,20}}\b(?:{_RULES}|training)\b"
    rf"|\b{_IGNORE}(?:your\b.{{0,20}}\b{_RULES}|(?:previous|prior|earlier|above)\b.{{0,20}}\b(?:instructions?|prompts?))\b"
    r"|\b(?:system|initial|hidden) prompt\b|\bjailbreak\b|\bdeveloper mode\b|\bdo anything now\b"
    r"|^\W*(?:please |now |(?:i want|tell|ask) you to )*(?:pretend|act|role-?play) (?:to be|as|that you|like)\b"
    rf"|{_START}you are (?:now|no longer)\b"
    # Asked to write something else than an answer; whoever wants a summary or a translation may mean the archives.
    r"|^\W*(?:please |now |(?:can|could|will|would) you (?:please )?)*"
    r"(?:(?:write|compose|draft) (?:me |us )?(?:an?|the|some|my)\b|repeat (?:after me|your|the word)\b"
    r"|say (?:the word|something(?! about)|after me)\b|translate (?:your|my|this|that|it)\b)"
    r"|<\|[^|>]*\|>|\[/?INST\]",
    re.I,
)

# Of each language the words that tell it by themselves, then others.  None of the former is a word of the archives or a
# likely slip in English ("wo" and "wer" for "who" and "were", "quien" for "queen").
_FOREIGN: dict[str, tuple[str, str]] = {
    "de": ("wohnt lebt heißt heisst macht nicht warum wann welche welcher welches getötet tötete",
           "wer wo wie was der die das und ist ein eine hat sind war den dem von für mit auf wurde in an so"),
    "fr": ("qui où pourquoi quand quel quelle quels quelles habite tué c'est qu'est",
           "le la les des est que quoi comment une dans pour avec sont était du et a on me"),
    "es": ("quién quiénes qué cuál cuándo cuando dónde donde cómo mató murió vive",
           "el la los las es quien que como por para con una del son fue y en a me"),
    "pl": ("kto kogo komu kiedy gdzie dlaczego jaki jaka jakie która który które czym czy mieszka zabił umarł",
           "jest nazywa zginął kim co jak ile lat ma był była są na do w z i o a"),
    "it": ("chi perché perche quando dov'è cos'è chi'è com'è abita ucciso vive",
           "il lo gli è che cosa dove come una della del sono era quale di e con per ha in a"),
    "pt": ("quem onde quando porquê matou vive", "o os as é que como uma da do são foi qual e com para não mora a"),
    "nl": ("wie waar waarom wanneer welke woont heeft", "de het een is hoe van en met zijn niet was op voor in of die"),
    "cs": ("kdo kde proč kdy jaký jaká bydlí zabil", "je co jak byl byla jsou na se že který do v z a"),
    "tr": ("kimdir nedir nerede neden nasıl kaç yaşıyor öldürdü", "kim ne bir ve mi mı bu için ile"),
    "sv": ("vem vad är varför", "hur var och bor en ett den det i"),
    "da": ("hvem hvor hvorfor hvad hva hvornår", "er og bor en et den det i"),
    "fi": ("kuka missä miksi milloin mikä", "on ja ei se"),
}  # fmt: skip
_TELLING = frozenset(word for telling, _ in _FOREIGN.values() for word in telling.split())
_FOREIGN_WORDS = [frozenset(f"{telling} {others}".split()) for telling, others in _FOREIGN.values()]
# English words that are words of those languages too decide nothing.
_ENGLISH_WORDS = (
    "the a an of in on at is are was were be who what where when why how which did does do has have had and or not to "
    "for from with by about as it he she they his her their you your me my i can could will would tell this that there "
    "if so die war van den per come most made"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_QUESTIONS = re.compile(r"[^?\n]{8,}?\?+")
_ASKS = re.compile(
    rf"\W*(?:(?:{_GREETING})\W+)?(?P<more>(?:and|also)\W+(?:also\s+)?)?"
    r"(?:(?:who|what|where|when|how)(?:['’]?s)?|whose|whom|why|which"
    r"|(?P<verb>is|are|was|were|do|does|did|has|have|had|can))\b",
    re.I,
)
_YOU = re.compile(r"\byou\b", re.I)
# Names in small letters cannot be told from other words, but "who is vesemir" asks for something by its name.
_PORTRAIT = re.compile(
    r"\W*(?:who|what)(?:['’]?s| is| are| was| were) (?!the\b)(?:an? )?[\w'’-]+(?: [\w'’-]+)?\W*", re.I
)


def reply(text: str) -> str | None:
    """What to say to a turn that asks nothing of the archives, or None when it is a question for them."""
    said = " ".join(word.raw for word in words(text)).replace("’", "'")
    if not said:
        return EMPTY
    for pattern, answer in _WHOLES:
        if pattern.fullmatch(said):
            return answer
    if _ORDERS.search(text):
        return _ORDER
    return _LANGUAGE if is_foreign(text) else None


def is_foreign(text: str) -> bool:
    """Whether a text is in another language: another script, more of another language's small words than English ones
    and at least two, or one that tells it by itself among words of which none is English only."""
    letters = [letter for letter in text if letter.isalpha()]
    if sum(ord(letter) > 0x24F for letter in letters) > len(letters) / 2:
        return True
    said = [word.raw.casefold().replace("’", "'") for word in words(text)]
    english = {word for word in said if word in _ENGLISH}
    count = sum(word in english for word in said)
    for language in _FOREIGN_WORDS:
        own = {word for word in said if word in language and word not in english}
        if len(own) >= 2 and len(own) > count:
            return True
        if len(said) >= 2 and not _TELLING.isdisjoint(own) and english <= language:
            return True
    return False


def first_question(text: str, limit: int = 3) -> str | None:
    """The first question of a turn with more than ``limit`` of them, or with another that stands apart, else None."""
    asked = _QUESTIONS.findall(text)
    if len(asked) > limit or (len(asked) > 1 and _is_whole(asked[0]) and any(map(_stands_apart, asked[1:]))):
        return asked[0].strip()
    return None


def _is_whole(question: str) -> bool:
    """Whether the first question is more than an introduction to the next: "She was in Novigrad, wasn't she?"."""
    last = re.split(r"(?<=[.!])\s+", question.strip())[-1]
    asks = _ASKS.match(last)
    if not asks or reply(last) is not None or _YOU.search(last):
        return False  # "How are you? Who is Ciri?"
    return bool(proper_names(last[asks.end() :]) or _PORTRAIT.fullmatch(last))


def _stands_apart(question: str) -> bool:
    """Whether a later question is one of its own.  "Is there a quest where Roach talks? What is it called?" is one
    question; "Who is Ciri? And where was she born?" are two, and the second is understood when it comes by itself."""
    asks = _ASKS.match(question)
    if not asks:
        return False
    rest = question[asks.end() :]
    if asks["more"] and len(words(rest)) > 1:  # "And why?" is part of the first
        return True
    names = proper_names(rest) or _PORTRAIT.fullmatch(question)
    return bool(names) and not (POINTS_BACK.search(question) or _YOU.search(question))

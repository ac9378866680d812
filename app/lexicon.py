"""Words that stand for one another between a question and the sentence that answers it.

A question says *raised*, an infobox *foster mother*; *how old* meets *age*.  A small hand-made table of ordinary
English relations, directed from a question's word to the words of a sentence, written as stems are.  It is the floor
until a trained second stage knows better, and it holds no names.
"""

from __future__ import annotations

from app.text import stem

_TABLE = """
mother: mum parent mom
mum: mother parent
father: dad parent sire
dad: father parent
parent: mother father daughter son child
sibling: brother sister twin
child: daughter son kid offspring children
daughter: child mother father parent
son: child mother father parent
wife: married marry husband spouse consort queen
husband: married marry wife spouse consort king
marry: wife husband spouse married wedding consort
grandmother: grandparent granddaughter grandson
grandfather: grandparent granddaughter grandson
lover: love affair romance beloved partner relationship
love: lover affair romance beloved
kill: slay murder death die victor execute assassinate strike weakness
murder: kill slay assassinate
shoot: kill
die: death kill perish drown fall killed end
death: die kill perish
bear: birth birthplace native bore
live: home dwell reside inhabit inhabitant location residence lair occurrence
home: live house residence seat
locate: location lie lies stand region situated
location: lie lies stand region situated locate
raise: foster rear adopt upbringing guardian bring care
teach: train mentor tutor instruct pupil student teacher
train: teach mentor tutor instruct pupil taught
mentor: teach train tutor
friend: companion ally friendship
enemy: foe rival antagonist adversary
create: creator make invent found design author
make: create forge craft brew produce
invent: create inventor
found: founder establish create
build: construct raise erect
write: author novel writer book
author: write writer
direct: director
compose: composer music
publish: publisher published released publication
release: released published publication launch
develop: developer studio
rule: king queen emperor empress monarch reign govern ruler duke duchess
king: rule monarch ruler
queen: rule monarch ruler
ruler: rule king queen emperor
leader: lead head command chief
lead: leader head command
command: commander lead general
horse: mare steed mount stallion gelding
sword: blade weapon
weapon: sword blade bow crossbow axe
old: age aged year born
age: old aged born year
call: name known nickname alias
name: call known nickname alias title
nickname: call known alias
play: actor actress portray cast performer
portray: actor play actress
actor: play portray
voice: actor dub
job: profession work occupation
work: profession job occupation
profession: job work
craft: profession trade
living: profession job work trade
office: post title rank regent profession
rank: title post profession
race: human elf dwarf species
species: race class
weak: weakness vulnerable susceptible susceptibility oil
weakness: weak vulnerable susceptible susceptibility oil
vulnerable: weakness susceptible
effective: weakness susceptible susceptibility oil
fight: battle duel combat weakness
defeat: kill win victor beat victory
win: victor victory defeat outcome
lose: defeat
hurt: wound injure
wound: hurt injure scar
destroy: sack burn raze fall
color: hair eye colour
colour: hair eye color
wear: clothes dress armour
power: ability magic gift
ability: power magic gift
ingredient: brewed herb made contain
brew: ingredient made
member: belong join membership
belong: member owner own
own: owner belong
begin: start
start: begin
end: finish conclude outcome
happen: occur take place
appear: appearance first debut
betray: traitor treason betrayal
promise: law surprise
prophecy: foretell prophesy ithlinne
meaning: mean
price: cost reward payment
payment: price reward pay
pub: tavern inn
peddler: pedlar merchant
mean: meaning stand name
translate: mean meaning name word
bird: owl raven kestrel crow falcon hawk
money: coin currency
perfume: scent smell fragrance
smell: scent perfume odour
height: tall feet
big: tall feet size large
largest: biggest big
charge: govern lead command rule
afraid: fear
replace: successor succeed instead
last: duration
dark: darkness
goodbye: farewell
pay: offer fee reward payment price
see: sight vision
"""

ALTERNATIVES: dict[str, frozenset[str]] = {
    stem(head.strip()): frozenset(stem(word) for word in tail.split())
    for head, tail in (line.split(":") for line in _TABLE.strip().splitlines())
}
"""Stem of a question's word → stems of the words that may answer to it."""

_EVERYDAY = """
father: dad daddy papa pa
mother: mum mummy mom mommy mama ma
grandmother: grandma granny nana
grandfather: grandpa granddad
child: kid
children: kids
brother: bro
sister: sis
husband: hubby
wife: missus wifey
lover: girlfriend boyfriend gf bf
betrothed: fiance fiancé fiancee fiancée
friend: buddy pal bestie bff
friends: buddies pals
man: guy dude bloke
men: guys dudes blokes
woman: gal chick
villain: baddie
largest: biggest
smallest: tiniest
latest: newest
film: movie flick
films: movies flicks
episode: ep
episodes: eps
season: ssn
money: cash
pay: salary
inn: pub
drink: booze
nickname: moniker
birth: birthday bday
born: birthplace
what: wat wut wot
which: wich whch
you: u
are: r
because: cuz coz cos
want: wanna
going: gonna
nothing: nothin nuthin
real: irl
"""
EVERYDAY: dict[str, str] = {
    word: head.strip()
    for head, tail in (line.split(":") for line in _EVERYDAY.strip().splitlines())
    for word in tail.split()
}
"""What people type → the word that an encyclopaedia uses for it."""

_KINDS = (
    "year date time name kind type sort person people character place thing number colour color reason way purpose "
    "role story book novel game series show tv netflix happen"
)
KIND_WORDS = frozenset(stem(word) for word in _KINDS.split())
"""Nouns that only say what kind of answer is wanted; a sentence need not repeat them."""

_SLAYING = "kill murder slay slain assassinate assassination behead killer murderer slayer assassin"
SLAYING = frozenset(stem(word) for word in _SLAYING.split())
"""One deed in so many words: who asks for the killer is answered by the murderer."""

_UNSAID = (
    "trade craft job work profession occupation calling specialty task mission duty office post position rank title "
    "crime sin deed mistake fault fate end death destiny goal aim plan intention motive wish desire dream fear "
    "relation relationship connection tie bond nickname byname alias origin birth race species nationality home "
    "homeland birthplace residence appearance look form shape personality nature temper attitude opinion view feeling "
    "reaction power ability skill talent strength weakness vulnerability purpose meaning use function effect "
    "importance significance history past background youth fame reputation secret identity problem trouble "
    "trick excuse answer advice idea lesson age height size weight price cost reward religion gender sex"
)
UNSAID = frozenset(stem(word) for word in _UNSAID.split())
"""Nouns for what somebody has that a sentence tells without them: a cobbler's trade needs no *trade*."""

_ELDERS, _YOUNGERS = (
    frozenset(stem(word) for word in side.split())
    for side in (
        "mother mum mom father dad parent grandmother grandfather grandparent aunt uncle",
        "daughter son kid child offspring children granddaughter grandson grandchild niece nephew",
    )
)
INVERSE: dict[str, frozenset[str]] = dict.fromkeys(_ELDERS, _YOUNGERS) | dict.fromkeys(_YOUNGERS, _ELDERS)
"""Relations that are the same seen from the other end, which is another person's: a *mother* is no *daughter*."""

KIND_LABELS: dict[str, frozenset[str]] = {
    kind: frozenset(stem(word) for word in labels.split())
    for kind, labels in {
        "place": "location headquarters occurrence region home residence birthplace capital",
        "time": "date died born founded published released year first",
        "count": "age height population members duration",
    }.items()
}
"""Kind of question → infobox labels that answer it without a word in common."""

"""What the product itself says to people in chats, in one place and in several languages.

    [languages.fr]                      # in the file of GATEHOUSE_CONFIG
    welcome = "Vous pouvez me parler."
    queued = "Vous êtes numéro {place}."

    [profiles.paris]
    language = "fr"                     # or one that comes with the product: en, de

What a section leaves out is English. Words in braces stand for what is filled in; a text may leave them out, and may
name no others. ``GATEHOUSE_LANGUAGE`` is the language of everybody who has no profile with another one.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from shared.errors import SettingsError


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every text, in English; its name says when it is used."""

    # who may talk, and how often
    stranger: str = (
        "Hello! I do not know you yet. Please give this pairing code to the person who runs me; "
        "once it is approved, we can talk: {code}"
    )
    welcome: str = "You are let in now: we can talk."
    not_listed: str = "I may not talk to you. Whoever runs me decides who may."
    too_many: str = "I take {count} messages of yours within {span}. Please send this one again in {wait_s} s."
    span_second: str = "a second"
    span_minute: str = "a minute"
    span_hour: str = "an hour"
    span_day: str = "a day"

    crowded: str = "Hello! I do not know you yet, and too many others wait to be let in. Please write again later."

    # a session that is busy
    queued: str = "You are number {place} in the queue."
    shared: str = "I answer this together with the message before it."
    busy: str = "I am still working on an earlier message. Please send this one again later."
    newer: str = "I stopped this to turn to a newer message."
    stopped: str = "Stopped."

    # orders, and what came of them
    new_done: str = "A new conversation begins. The old one is kept, and the todo list stays as it is."
    new_nothing: str = "This conversation is new already."
    stop_done: str = "I stop what I was doing."
    stop_nothing: str = "Nothing is running here."
    retry_nothing: str = "There is no message here that I could run again."
    retry_waits: str = "Your last message has not begun yet; it still waits."
    undo_done: str = "Your last message and what came of it are taken back."
    undo_nothing: str = "There is nothing to take back."
    taken_back: str = "This message was taken back before I began with it."
    approve_done: str = "Approved. I go on."
    deny_done: str = "Refused. I go on without it."
    nothing_asked: str = "Nothing waits for your approval here."
    not_asked: str = "This question is answered already, or its time is over."

    # questions about tool calls, and their buttons
    approval_asked: str = "I need your approval to go on with:"
    approval_call: str = "- `{tool}` with `{arguments}`"
    approval_how: str = "Send /approve to allow it, or /deny to refuse it."
    approve_button: str = "Approve"
    deny_button: str = "Deny"

    # what is shown while a turn runs, behind the bot's name
    thinking: str = "is thinking…"
    using: str = "is using {tool}…"
    doing: str = "is {what}…"

    # budgets
    budget_session: str = "This conversation has used up its budget of {amount}"
    budget_user: str = "You have used up your budget of {amount}"
    budget_hour: str = "I have used up my budget of {amount}"
    budget_total: str = "{used}. Send /new to begin a new one."
    budget_this_hour: str = "{used} for this hour. Please come back at {clock} UTC, in {wait}."
    budget_this_day: str = "{used} for this day. Please come back at {clock} UTC, in {wait}."
    tokens: str = "{count} tokens"
    minutes: str = "{minutes} min"
    hours: str = "{hours} h {minutes} min"

    # answers
    rest_left_out: str = "(the rest was too long to be sent)"
    empty_answer: str = "(empty reply)"
    file_not_sent: str = "The file {name} cannot be sent here."

    # what /help tells of each command
    help_new: str = "begin a new conversation; the todo list stays"
    help_stop: str = "end what I am doing now"
    help_retry: str = "run your last message again"
    help_undo: str = "take back your last message, my answer and its change of the todo list"
    help_approve: str = "let me do what I asked about"
    help_deny: str = "refuse it"
    help_todo: str = "show the todo list, also while I work"
    help_status: str = "what this conversation is doing"
    help_trace: str = "where your last message is, or the one with this id"
    help_help: str = "what I can do"

    # answers to questions
    todo_none: str = "The todo list is empty."
    todo_list: str = "Todo, {done} of {count} done:"
    status_new: str = "Nothing has been said here yet."
    status: str = "Status: {doing}."
    status_one_more: str = "Status: {doing}; 1 more message waits."
    status_more: str = "Status: {doing}; {count} more messages wait."
    idle: str = "idle"
    waits_for_worker: str = "waiting for a worker"
    works: str = "working, step {step}"
    uses_tool: str = "working, step {step}, tool {tool}"
    status_profile: str = "Profile: {profile}."
    no_message: str = "There is no message {id} here."
    no_earlier_message: str = "There is no earlier message here."

    # what /trace tells
    trace_message: str = "{id}  {state}  session {session}  from {user}"
    trace_accepted: str = "accepted  {at}"
    trace_claimed: str = "claimed   {at}  worker {worker}  attempts {attempts}"
    trace_alone: str = "{claimed}  runs alone"
    trace_settled: str = "settled   {at}  {spent}"
    trace_so_far: str = "so far    {steps} steps, {spent}"
    trace_spent: str = "{calls} model calls, {tools} tool calls, {input} tokens in{cached}, {output} out{cost}"
    trace_cached: str = " ({count} cached)"
    trace_tool_runs: str = "tool      {at}  {tool}  running"
    trace_tool_took: str = "tool      {at}  {tool}  took {seconds} s"
    trace_says: str = "says      {text}"
    trace_joined: str = "joined    the turn of {id}"
    trace_reply: str = "reply {part}   {at}  {state}  {what}"
    trace_reply_tried: str = "reply {part}   after {attempts} attempts  {state}  {what}"
    trace_error: str = "error     {error}"
    state_running: str = "running"
    state_waiting: str = "waiting"
    state_done: str = "done"
    state_dead: str = "dead"
    state_rejected: str = "rejected"
    state_withdrawn: str = "withdrawn"
    state_pending: str = "pending"
    state_sent: str = "sent"
    state_failed: str = "failed"

    # turns that do not come to an answer
    turn_too_long: str = (
        "This took longer than I may work on one message, so I stopped. Ask for less at once, or try again."
    )
    model_silent: str = "The model did not answer in time. Your message is kept, and can be answered once it does."
    model_away: str = (
        "The model cannot be reached at the moment. Your message is kept, and can be answered once it is back."
    )
    model_misset: str = (
        "The model cannot be used as it is set up. Your message is kept; "
        "whoever runs this bot finds the reason in its log."
    )
    model_refused: str = (
        "The model refused this request, and would again. Whoever runs this bot finds the reason in its log; "
        "try other words, or start a new conversation."
    )
    conversation_too_long: str = (
        "This conversation is too long for the model. Please send a shorter message, or start a new conversation."
    )
    steps_used_up: str = "I stopped after {steps} steps without coming to an answer. Send “go on” to let me continue."
    nothing_said: str = "The model gave an empty answer. Please send your message again."
    nothing_said_after: str = (
        "I have used {tools}, and the model said nothing about what came of it. Nothing has to be sent again: "
        "ask me what came of it."
    )
    cut_off: str = (
        "The model's answer was cut off at its output limit again and again. Ask for less at once; whoever runs this "
        "bot can raise the limit."
    )
    format_missed: str = "The model did not answer in the form that was asked for: {problem}"
    turn_too_large: str = "What this turn produced is too large to keep. Please ask for less at once."
    conversation_too_large: str = (
        "Sorry, this conversation has become too large to go on with. Send /new to begin a new one."
    )
    turn_killed: str = "Sorry, this took too long and was stopped."
    given_up_once: str = (
        "Sorry, I could not answer this: the attempt failed once, and it was set aside for the operator to look at."
    )
    given_up: str = (
        "Sorry, I could not answer this: the attempt failed {attempts} times, and it was set aside for the operator to "
        "look at."
    )
    our_fault: str = (
        "Something went wrong on our side. Please try again; whoever runs this bot finds the reason in its log."
    )

    def of_state(self, state: str) -> str:
        """Return what a message's or a reply's state is called."""
        text: str = getattr(self, f"state_{state}")
        return text

    def help_of(self, command: str) -> str:
        """Return what a chat command does; ``command`` is one of CHAT_COMMANDS (shared/command.py)."""
        text: str = getattr(self, f"help_{command.removeprefix('/')}")
        return text


GERMAN = Texts(
    stranger="Hallo! Ich kenne dich noch nicht. Gib diesen Code der Person, die mich betreibt; sobald sie ihn "
    "bestätigt, können wir reden: {code}",
    welcome="Du bist freigeschaltet: wir können reden.",
    not_listed="Ich darf nicht mit dir reden. Wer mich betreibt, entscheidet, wer darf.",
    too_many="Ich nehme {count} Nachrichten von dir in {span} an. Bitte schicke diese in {wait_s} s noch einmal.",
    span_second="einer Sekunde",
    span_minute="einer Minute",
    span_hour="einer Stunde",
    span_day="einem Tag",
    crowded="Hallo! Ich kenne dich noch nicht, und zu viele andere warten schon. Bitte schreibe später noch einmal.",
    queued="Du bist Nummer {place} in der Warteschlange.",
    shared="Ich beantworte das zusammen mit der Nachricht davor.",
    busy="Ich arbeite noch an einer früheren Nachricht. Bitte schicke diese später noch einmal.",
    newer="Ich habe das abgebrochen, um mich einer neueren Nachricht zuzuwenden.",
    stopped="Abgebrochen.",
    new_done="Ein neues Gespräch beginnt. Das alte bleibt erhalten, und die Aufgabenliste bleibt, wie sie ist.",
    new_nothing="Dieses Gespräch ist schon neu.",
    stop_done="Ich breche ab, was ich gerade tat.",
    stop_nothing="Hier läuft gerade nichts.",
    retry_nothing="Hier ist keine Nachricht, die ich noch einmal bearbeiten könnte.",
    retry_waits="Deine letzte Nachricht hat noch nicht begonnen; sie wartet noch.",
    undo_done="Deine letzte Nachricht und was daraus wurde ist zurückgenommen.",
    undo_nothing="Hier gibt es nichts zurückzunehmen.",
    taken_back="Diese Nachricht wurde zurückgenommen, bevor ich mit ihr begann.",
    approve_done="Erlaubt. Ich mache weiter.",
    deny_done="Abgelehnt. Ich mache ohne weiter.",
    nothing_asked="Hier wartet nichts auf deine Erlaubnis.",
    not_asked="Diese Frage ist schon beantwortet, oder ihre Zeit ist um.",
    approval_asked="Ich brauche deine Erlaubnis, um weiterzumachen mit:",
    approval_call="- `{tool}` mit `{arguments}`",
    approval_how="Schicke /approve, um es zu erlauben, oder /deny, um es abzulehnen.",
    approve_button="Erlauben",
    deny_button="Ablehnen",
    thinking="denkt nach…",
    using="benutzt {tool}…",
    doing="{what}…",
    budget_session="Dieses Gespräch hat sein Budget von {amount} aufgebraucht",
    budget_user="Du hast dein Budget von {amount} aufgebraucht",
    budget_hour="Ich habe mein Budget von {amount} aufgebraucht",
    budget_total="{used}. Schicke /new für ein neues.",
    budget_this_hour="{used}, für diese Stunde. Bitte komm um {clock} UTC wieder, in {wait}.",
    budget_this_day="{used}, für diesen Tag. Bitte komm um {clock} UTC wieder, in {wait}.",
    tokens="{count} Token",
    minutes="{minutes} Min",
    hours="{hours} Std {minutes} Min",
    rest_left_out="(der Rest war zu lang, um gesendet zu werden)",
    empty_answer="(leere Antwort)",
    file_not_sent="Die Datei {name} kann hier nicht gesendet werden.",
    help_new="ein neues Gespräch beginnen; die Aufgabenliste bleibt",
    help_stop="abbrechen, was ich gerade tue",
    help_retry="deine letzte Nachricht noch einmal bearbeiten",
    help_undo="deine letzte Nachricht, meine Antwort und ihre Änderung der Aufgabenliste zurücknehmen",
    help_approve="mir erlauben, wonach ich gefragt habe",
    help_deny="es ablehnen",
    help_todo="die Aufgabenliste zeigen, auch während ich arbeite",
    help_status="was dieses Gespräch gerade tut",
    help_trace="wo deine letzte Nachricht ist, oder die mit dieser Nummer",
    help_help="was ich kann",
    todo_none="Die Aufgabenliste ist leer.",
    todo_list="Aufgaben, {done} von {count} erledigt:",
    status_new="Hier wurde noch nichts gesagt.",
    status="Stand: {doing}.",
    status_one_more="Stand: {doing}; 1 weitere Nachricht wartet.",
    status_more="Stand: {doing}; {count} weitere Nachrichten warten.",
    idle="nichts zu tun",
    waits_for_worker="wartet auf einen Arbeiter",
    works="arbeitet, Schritt {step}",
    uses_tool="arbeitet, Schritt {step}, Werkzeug {tool}",
    status_profile="Profil: {profile}.",
    no_message="Hier ist keine Nachricht {id}.",
    no_earlier_message="Hier ist keine frühere Nachricht.",
    trace_message="{id}  {state}  Gespräch {session}  von {user}",
    trace_accepted="angenommen  {at}",
    trace_claimed="begonnen    {at}  Arbeiter {worker}  Versuche {attempts}",
    trace_alone="{claimed}  läuft allein",
    trace_settled="beendet     {at}  {spent}",
    trace_so_far="bisher      {steps} Schritte, {spent}",
    trace_spent="{calls} Modellaufrufe, {tools} Werkzeugaufrufe, {input} Token hinein{cached}, {output} heraus{cost}",
    trace_cached=" (davon {count} zwischengespeichert)",
    trace_tool_runs="Werkzeug    {at}  {tool}  läuft",
    trace_tool_took="Werkzeug    {at}  {tool}  dauerte {seconds} s",
    trace_says="sagt        {text}",
    trace_joined="beantwortet mit {id}",
    trace_reply="Antwort {part}   {at}  {state}  {what}",
    trace_reply_tried="Antwort {part}   nach {attempts} Versuchen  {state}  {what}",
    trace_error="Fehler      {error}",
    state_running="läuft",
    state_waiting="wartet",
    state_done="fertig",
    state_dead="gescheitert",
    state_rejected="abgewiesen",
    state_withdrawn="zurückgenommen",
    state_pending="ausstehend",
    state_sent="gesendet",
    state_failed="abgelehnt",
    turn_too_long="Das dauerte länger, als ich an einer Nachricht arbeiten darf, darum habe ich aufgehört. Frage nach "
    "weniger auf einmal, oder versuche es noch einmal.",
    model_silent="Das Modell hat nicht rechtzeitig geantwortet. Deine Nachricht bleibt erhalten und kann beantwortet "
    "werden, sobald es antwortet.",
    model_away="Das Modell ist gerade nicht zu erreichen. Deine Nachricht bleibt erhalten und kann beantwortet werden, "
    "sobald es wieder da ist.",
    model_misset="Das Modell kann so, wie es eingerichtet ist, nicht benutzt werden. Deine Nachricht bleibt erhalten; "
    "wer diesen Bot betreibt, findet den Grund im Protokoll.",
    model_refused="Das Modell hat diese Anfrage abgelehnt und würde es wieder tun. Wer diesen Bot betreibt, findet den "
    "Grund im Protokoll; versuche andere Worte, oder beginne ein neues Gespräch.",
    conversation_too_long="Dieses Gespräch ist zu lang für das Modell. Schicke bitte eine kürzere Nachricht, oder "
    "beginne ein neues Gespräch.",
    steps_used_up="Ich habe nach {steps} Schritten ohne Antwort aufgehört. Schicke „weiter“, damit ich weitermache.",
    nothing_said="Das Modell gab eine leere Antwort. Bitte schicke deine Nachricht noch einmal.",
    nothing_said_after="Ich habe {tools} benutzt, und das Modell sagte nicht, was daraus wurde. Es muss nichts noch "
    "einmal geschickt werden: frage mich, was daraus wurde.",
    cut_off="Die Antwort des Modells wurde wieder und wieder an seiner Ausgabegrenze abgeschnitten. Frage nach weniger "
    "auf einmal; wer diesen Bot betreibt, kann die Grenze erhöhen.",
    format_missed="Das Modell hat nicht in der verlangten Form geantwortet: {problem}",
    turn_too_large="Was hier entstanden ist, ist zu groß, um es zu behalten. Bitte frage nach weniger auf einmal.",
    conversation_too_large="Dieses Gespräch ist leider zu groß geworden, um weiterzugehen. Schicke /new für ein neues.",
    turn_killed="Das dauerte leider zu lange und wurde abgebrochen.",
    given_up_once="Das konnte ich leider nicht beantworten: der Versuch ist gescheitert, und es liegt jetzt "
    "beim Betreiber.",
    given_up="Das konnte ich leider nicht beantworten: {attempts} Versuche sind gescheitert, und es liegt jetzt beim "
    "Betreiber.",
    our_fault="Bei uns ist etwas schiefgegangen. Bitte versuche es noch einmal; wer diesen Bot betreibt, findet den "
    "Grund im Protokoll.",
)

ENGLISH = Texts()

#: the languages that come with the product
LANGUAGES: Mapping[str, Texts] = MappingProxyType({"en": ENGLISH, "de": GERMAN})

#: those of them that platforms show to people whose own language they are; everybody else sees English
TRANSLATIONS: Mapping[str, Texts] = MappingProxyType({"de": GERMAN})

#: what a platform's menu says of the slash command that only speaks to the agent, for whoever runs the bot to change
ASK = "Talk to the agent"


def language(name: str, own: Mapping[str, Texts], setting: str) -> Texts:
    """Return the texts of a language, the file's own before those that come along. Raises SettingsError."""
    known = {**LANGUAGES, **own}
    if name not in known:
        raise SettingsError(setting, f"there is no language {name!r}; there are {', '.join(known)}")
    return known[name]


def check_texts(where: str, texts: Texts, setting: str) -> None:
    """Check that a language fills in nothing that English does not. Raises SettingsError."""
    for field in Texts.__struct_fields__:
        text, english = getattr(texts, field), getattr(ENGLISH, field)
        try:
            unknown = names_in(text) - names_in(english)
        except ValueError as error:
            raise SettingsError(setting, f"{where}.{field}: {error}") from None
        if unknown:
            raise SettingsError(setting, f"{where}.{field}: nothing is filled in for {{{min(unknown)}}}")


def names_in(text: str) -> set[str]:
    """Return the names in braces. Raises ValueError for braces that are not closed."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

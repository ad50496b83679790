"""Makes profiles of what the file of ``GATEHOUSE_CONFIG`` says."""

from __future__ import annotations

from collections.abc import Collection

from shared.budgets import Budget, Budgets, BudgetWindow, Scope, dearest_of, parse_budget
from shared.config_file import SETTING, read_config_file
from shared.errors import SettingsError
from shared.model_settings import chain_of
from shared.model_spec import ModelSpec
from shared.profiles import AgentProfile, Profile, Profiles, ProfileSection, ToolChoice
from shared.settings_reader import SettingsReader
from shared.texts import Texts, check_texts, language


def read_profiles(
    reader: SettingsReader, default: AgentProfile, budgets: Budgets, platforms: Collection[str]
) -> Profiles:
    """Read the profiles; ``default`` and ``budgets`` are what holds where none fits. Raises SettingsError."""
    file = read_config_file(reader)
    found = []
    for name, section in file.profiles.items():
        if unknown := set(_words(section.platform)) - set(platforms):
            known = ", ".join(platforms)
            raise SettingsError(SETTING, f"profiles.{name}.platform: there is no {min(unknown)!r}; there are {known}")
        models = chain_of(reader, _words(section.model), file) or default.models
        fits = [model.context_tokens for model in models if model.context_tokens is not None]
        agent = AgentProfile(
            name=name,
            models=models,
            system_prompt=default.system_prompt if section.prompt is None else section.prompt,
            context_tokens=min([default.context_tokens, *fits]),
            tools=ToolChoice(section.tools, section.mcp_servers),
            texts=language(section.language, file.languages, SETTING) if section.language else default.texts,
        )
        profile = Profile(
            agent,
            budgets=_budgets(name, section, models, budgets),
            platforms=_words(section.platform),
            accounts=_words(section.account),
            channels=_words(section.channel),
            users=_words(section.user),
            when_busy=section.when_busy,
        )
        found.append(profile)
    return Profiles(tuple(found), default.texts)


def read_language(reader: SettingsReader) -> Texts:
    """Return what the product says to those who have no profile with another language. Raises SettingsError."""
    own = read_config_file(reader).languages
    for name, texts in own.items():
        check_texts(f"languages.{name}", texts, SETTING)
    return language(reader.text("GATEHOUSE_LANGUAGE", "en"), own, "GATEHOUSE_LANGUAGE")


def _budgets(name: str, section: ProfileSection, models: tuple[ModelSpec, ...], others: Budgets) -> Budgets:
    """Return the budgets of a profile: its own, and of the others those whose scope it says nothing of."""
    told = (
        ("session_budget", section.session_budget, Scope.SESSION, BudgetWindow.TOTAL),
        ("user_budget", section.user_budget, Scope.USER, BudgetWindow.DAY),
    )
    own: list[Budget] = [
        parse_budget(f"{SETTING}: profiles.{name}.{key}", text, scope, window)
        for key, text, scope, window in told
        if text
    ]
    scopes = {budget.scope for budget in own}
    budgets = (*own, *(budget for budget in others.budgets if budget.scope not in scopes))
    unpriced = next((model.name for model in models if model.price is None), None)
    if unpriced is not None and any(budget.money for budget in budgets):
        raise SettingsError(SETTING, f"profiles.{name}: a budget is in money, and {unpriced} has no price; set one")
    return Budgets(budgets, dearest_of([(model.name, model.price) for model in models]))


def _words(words: str | tuple[str, ...]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else words

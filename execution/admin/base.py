"""What the admin's pages share: read-only lists that stay fast, detail pages, and verbs.

State is never edited in a form. What people can do to an object is a *verb*: a POST with its own permission,
confirmation and values, which calls one lifecycle function. A refusal of that function is told on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets, SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from scheduling_project.common import json_values
from scheduling_project.common.errors import DomainError

Subject = TypeVar("Subject", bound=Model)

MOST_AT_ONCE: Final = 500


class JSONText(forms.CharField):
    """A JSON value typed by a person, read strictly: what cannot be kept is refused with its place."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 7, "class": "sp-code", "spellcheck": "false"})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            return json_values.parse(text)
        except json_values.JSONProblem as error:
            raise forms.ValidationError(f"This {error}" if not error.path else str(error)) from None

    def prepare_value(self, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else shown.json_text(value)


def note_field(label: str = "Note", *, required: bool = False) -> forms.CharField:
    """One line that is kept with the deed in the audit trail."""
    return forms.CharField(
        label=label, required=required, max_length=500, widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})
    )


class Confirmation(forms.Form):
    """A verb that asks for nothing but "yes"."""


class WithNote(Confirmation):
    """A verb that takes a note."""

    note = note_field("Note (kept in the audit trail)")


class Done(NamedTuple):
    """What a verb did, for the person who asked, and where to go on (the object's page when empty)."""

    message: str
    to: str = ""


def always(subject: Any) -> bool:
    return True


def nothing(subject: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Verb(Generic[Subject]):
    """Something that people can do to an object.

    Args:
        perform: calls the lifecycle function with (subject, the form's values, actor). May raise DomainError.
        permission: full name of the permission that it needs.
        available: whether the object's present state allows it; only for display, `perform` decides.
        form: what it asks for; `initial` fills it.
        many: also offered for selected rows of the list.
        as_page: the form is too large for a dialog: a page of its own, which GET shows.
    """

    name: str
    label: str
    permission: str
    perform: Callable[[Subject, Mapping[str, Any], str], Done]
    icon: str = "play_arrow"
    explanation: str = ""
    form: type[forms.Form] = Confirmation
    initial: Callable[[Subject], dict[str, Any]] = nothing
    available: Callable[[Subject], bool] = always
    danger: bool = False
    primary: bool = False
    many: bool = False
    as_page: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """A verb as a page offers it."""

    verb: Verb[Any]
    url: str
    form: forms.Form


def one_of(field_name: str, values: Sequence[str], *, title: str = "") -> type[SimpleListFilter]:
    """A filter by values that are known beforehand: Django's own asks a large table for all that occur in it."""

    class OneOf(SimpleListFilter):
        parameter_name = field_name

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [(value, value.replace("_", " ").capitalize()) for value in values]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{field_name: self.value()}) if self.value() else queryset

    OneOf.title = title or field_name.replace("_", " ")
    return OneOf


class Titled:
    """An object as the page's path shows it: under its title rather than its `str`."""

    def __init__(self, subject: Model, title: str) -> None:
        self._meta = subject._meta
        self.pk = subject.pk
        self.title = title

    def __str__(self) -> str:
        return self.title


@dataclass(frozen=True, slots=True)
class Chip:
    """One of the links above a list that narrow it to a state."""

    label: str
    url: str
    tone: str
    is_active: bool


class FastList(ModelAdmin):  # type: ignore[misc]
    """A list that never counts its table: pages of a fixed size, no facets, no totals."""

    paginator = InfinitePaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    list_disable_select_all = True
    list_fullwidth = True
    sortable_by: Sequence[str] | None = ()

    #: A field with choices whose values are offered as links above the list.
    chips_field: ClassVar[str] = ""
    #: Value, label and tone of each link, where the field has no choices.
    chips_choices: ClassVar[Sequence[tuple[str, str, str]]] = ()
    #: What the list says when it is empty.
    empty_text: ClassVar[str] = "Nothing here yet."
    #: What the button says that adds one, where "Add" and the model's name do not.
    add_text: ClassVar[str] = ""
    list_before_template = "admin/parts/chips.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"chips": self._chips(request)}
        response: HttpResponse = super().changelist_view(request, context | (extra_context or {}))
        return response

    def _chips(self, request: HttpRequest) -> list[Chip]:
        if not self.chips_field:
            return []
        parameter = f"{self.chips_field}__exact"
        present = request.GET.get(parameter)

        def to(value: str | None) -> str:
            query = request.GET.copy()
            for name in (parameter, "p"):
                query.pop(name, None)
            if value is not None:
                query[parameter] = value
            return f"?{query.urlencode()}"

        choices = self.chips_choices or [
            (str(value), str(label), shown.tone(value))
            for value, label in self.model._meta.get_field(self.chips_field).flatchoices
        ]
        return [
            Chip("All", to(None), "calm", present is None),
            *(Chip(label, to(value), tone, present == value) for value, label, tone in choices),
        ]


class ReadOnlyAdmin(FastList):
    """Rows that the engine writes: a list, a detail page and verbs, but no form."""

    verbs: ClassVar[Sequence[Verb[Any]]] = ()
    detail_template: ClassVar[str] = "admin/detail.html"
    list_display_links: Any = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def may_view(self, request: HttpRequest) -> bool:
        return bool(self.has_view_permission(request))

    # ── The page of one object ───────────────────────────────────────────────────────────────────────────────

    def detail(self, request: HttpRequest, subject: Any) -> dict[str, Any]:
        """What the detail page shows beside the fields; subclasses fill it."""
        return {"facts": self.facts(subject)}

    def facts(self, subject: Any) -> list[tuple[str, Any]]:
        """Labels and values of the plain fields."""
        return [
            (str(field.verbose_name).capitalize(), getattr(subject, field.name)) for field in self.model._meta.fields
        ]

    def title_of(self, subject: Any) -> str:
        return str(subject)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponseBase:
        """The detail page in place of Django's form."""
        if request.method not in {"GET", "HEAD"}:
            raise PermissionDenied  # nothing is edited here; deeds are verbs
        if not self.may_view(request):
            raise PermissionDenied
        if object_id is None:
            raise PermissionDenied
        subject = self.get_object(request, unquote(object_id))
        if subject is None:
            response: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return response
        context = {
            **self._page(request, self.title_of(subject), subject),
            "offered": self.offered(request, subject),
            **self.detail(request, subject),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.detail_template, context)

    def _page(self, request: HttpRequest, title: str, subject: Model | None = None) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": None if subject is None else Titled(subject, self.title_of(subject)),
            "subject": subject,
            "title": title,
            "media": self.media,
        }

    # ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────

    def offered(self, request: HttpRequest, subject: Any) -> list[Offered]:
        """The verbs that this user may use on this object in its present state."""
        return [
            Offered(verb, self._verb_url(subject, verb), self._form(verb, subject))
            for verb in self.verbs
            if verb.available(subject) and request.user.has_perm(verb.permission)
        ]

    def _form(self, verb: Verb[Any], subject: Any, data: Any = None, *, prefix: str | None = None) -> forms.Form:
        return verb.form(data, initial=verb.initial(subject), prefix=verb.name if prefix is None else prefix)

    def _verb_url(self, subject: Model, verb: Verb[Any]) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_verb", args=[subject.pk, verb.name])

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<path:object_id>/do/<slug:name>/",
            self.admin_site.admin_view(self.verb_view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_verb",
        )
        urls: list[URLPattern] = [own, *super().get_urls()]
        return urls

    def verb_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponseBase:
        """Do a verb: POST only, but for the form of a verb that is a page."""
        verb = next((verb for verb in self.verbs if verb.name == name), None)
        if verb is None:
            raise Http404
        if not (self.may_view(request) and request.user.has_perm(verb.permission)):
            raise PermissionDenied
        if request.method != "POST" and not verb.as_page:
            return HttpResponseNotAllowed(["POST"])
        subject = self.get_object(request, unquote(object_id))
        if subject is None:
            raise Http404
        return self.perform_verb(request, verb, subject, page=subject, title=self.title_of(subject))

    def perform_verb(
        self, request: HttpRequest, verb: Verb[Any], subject: Any, *, page: Model, title: str, prefix: str | None = None
    ) -> HttpResponseBase:
        """Show a verb's form, or do it to `subject`, which stands on the page of `page`.

        Args:
            prefix: of the names of the form's fields; the verb's name when None.
        """
        back = shown.page_of(page)
        form = self._form(verb, subject, request.POST if request.method == "POST" else None, prefix=prefix)
        if form.is_bound and form.is_valid():
            try:
                done = verb.perform(subject, form.cleaned_data, actor_of(request))
            except DomainError as error:
                if not error.fields:
                    messages.error(request, error.message)
                    return redirect(back)
                tell(form, error)
            else:
                messages.success(request, done.message)
                return redirect(done.to or back)
        context = {
            **self._page(request, f"{verb.label}: {title}", page),
            "verb": verb,
            "form": form,
            "subjects": [],
            "back": back,
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    # ── Verbs for many rows ──────────────────────────────────────────────────────────────────────────────────

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        for verb in self.verbs:
            if verb.many and request.user.has_perm(verb.permission):
                actions[verb.name] = (_many(verb), verb.name, f"{verb.label}…")
        return actions

    def do_many(self, request: HttpRequest, verb: Verb[Any], selected: QuerySet[Any]) -> HttpResponse | None:
        """Ask once for all selected rows, then do the verb to each in a transaction of its own."""
        subjects = list(selected[:MOST_AT_ONCE])
        confirmed = "confirmed" in request.POST
        form = verb.form(request.POST if confirmed else None, prefix=verb.name)
        if not (confirmed and form.is_valid()):
            context = {
                **self._page(request, f"{verb.label}: {len(subjects)} selected"),
                "verb": verb,
                "form": form,
                "subjects": subjects,
                "checkbox_name": ACTION_CHECKBOX_NAME,
                "back": request.get_full_path(),
            }
            return TemplateResponse(request, "admin/verb.html", context)
        done, refused = 0, dict[str, int]()
        for subject in subjects:
            try:
                verb.perform(subject, form.cleaned_data, actor_of(request))
            except DomainError as error:
                refused[str(error)] = refused.get(str(error), 0) + 1
            else:
                done += 1
        if done:
            messages.success(request, f"{verb.label}: {done} done.")
        for reason, count in refused.items():
            messages.error(request, f"{count} refused: {reason}")
        return None


def _many(verb: Verb[Any]) -> Callable[[ReadOnlyAdmin, HttpRequest, QuerySet[Any]], HttpResponse | None]:
    def act(admin: ReadOnlyAdmin, request: HttpRequest, selected: QuerySet[Any]) -> HttpResponse | None:
        return admin.do_many(request, verb, selected)

    return act


def actor_of(request: HttpRequest) -> str:
    """The name under which a deed is recorded."""
    return str(request.user.get_username())


def tell(form: forms.BaseForm, error: DomainError) -> None:
    """Put a refusal beside the fields that it is about."""
    for name, rules in error.fields.items():
        own = name.split(".")[0]
        known = own in form.fields
        for rule in rules:
            form.add_error(own if known else None, rule if name == own and known else f"{name}: {rule}")


@dataclass(slots=True)
class Listed:
    """Rows of a table on a detail page: headings and cells."""

    headings: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    empty: str = "None."
    more: str = ""

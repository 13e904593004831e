"""What the description cannot say, because OpenAPI has no words for it: such a request is well formed by the description
and refused all the same. Where schemathesis means to send a good request and comes upon one of these, it is put right
here, rule by rule; requests that it means to be bad are left as they are."""

import uuid

import schemathesis


def whole(value):
    """JSON Schema takes 1.0 for an integer; the hub wants integers written as such."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def in_order(fields):
    """`until` must be later than `since`."""
    if all(isinstance(fields.get(name), str) for name in ("since", "until")):
        del fields["until"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # A link may lead from what is null, as an event's message may be.
    for name, value in (case.path_parameters or {}).items():
        if value in (None, "None"):
            case.path_parameters[name] = str(uuid.uuid4())
    if case.query:
        in_order(case.query)
        # A cursor is the hub's word: none can be made up.
        case.query.pop("after", None)
        # A toolset is a service of one role: both may not be named.
        if "toolset" in case.query or "tool" in case.query:
            case.query.pop("service", None)
            case.query.pop("role", None)
    if not isinstance(case.body, dict):
        return
    case.body = whole(case.body)
    if isinstance(case.body.get("filter"), dict):
        in_order(case.body["filter"])
    # The header and the field must be the same key.
    if case.headers and any(name.lower() == "idempotency-key" for name in case.headers):
        case.body.pop("idempotency_key", None)
    # It must name another enabled toolset of the file.
    case.body.pop("fallback", None)
    # It goes with one of the actions only.
    if (case.path_parameters or {}).get("action") != "open":
        case.body.pop("open_ms", None)

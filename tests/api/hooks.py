# Keeps the tester's requests from ending the test: what would never be answered, or would shut the tester out.
import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    # Log and events that are followed do not end.
    if case.operation.path == "/logs" and isinstance(case.query, dict):
        case.query.pop("follow", None)
    # The tester's own tokens stay.
    parameters = case.path_parameters or {}
    if case.operation.path == "/tokens/{name}" and str(parameters.get("name", "")).startswith("tester"):
        parameters["name"] = "nobody"

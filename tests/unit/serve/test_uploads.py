"""Finding the image in a request's body."""

import pytest
from serving_stand_ins import FORM, form_of

from alexnet.serve.refusals import Refused
from alexnet.serve.uploads import image_in

KIND = f"multipart/form-data; boundary={FORM}"


def test_the_field_is_taken_whatever_else_is_there():
    tricky = b"\r\n--" + FORM.encode()[:-1] + b"\r\n\0 data"
    body = form_of([("a", "x", b"1"), ("image", "/etc/passwd\0.png", tricky), ("z", "", b"")])
    assert image_in(body, KIND, 1000) == tricky
    assert image_in(body, f'multipart/form-data; boundary="{FORM}"', 1000) == tricky


def test_any_other_body_is_the_image_itself():
    for kind in ("image/png", "text/html; charset=utf-8", "", "nonsense", "\xff"):
        assert image_in(b"bytes", kind, 1000) == b"bytes"


@pytest.mark.parametrize(
    ("body", "kind", "status", "part"),
    [
        (b"x", "multipart/form-data", 400, "no boundary"),
        (b"x", KIND, 400, "damaged"),
        (b"", KIND, 400, "no field named image"),
        (form_of([("picture", "x", b"1")]), KIND, 400, "no field named image"),
        (form_of([("image", "x", b"12345")])[:-12], KIND, 400, "cut off"),
        (form_of([("image", "x", b"1"), ("image", "x", b"1")]), KIND, 400, "several"),
        (form_of([("a", "x", b"1")] * 30), KIND, 400, "more than 20"),
        (form_of([("image", "x" * 100_000, b"1")]), KIND, 400, "damaged"),
        (form_of([("image", "x", b"1" * 1001)]), KIND, 413, "larger than 0.001 MB"),
        (b"1" * 1001, "image/png", 413, "larger than 0.001 MB"),
        (b"x", f"multipart/form-data; boundary={'b' * 5000}", 400, "damaged"),
    ],
)
def test_what_is_wrong_with_a_form_is_said(body, kind, status, part):
    with pytest.raises(Refused, match=part) as refused:
        image_in(body, kind, 1000)
    assert refused.value.status == status

import pytest

from sct_deepspine.io.sidecar import read_sidecar, recorded_files


@pytest.mark.parametrize(
    ("text", "is_ours"),
    [
        ('{"GeneratedBy": [{"Name": "sct_deepspine"}]}', True),
        ('{"GeneratedBy": [{"Name": "other"}, {"Name": "sct_deepspine_batch"}]}', True),
        ('{"GeneratedBy": [{"Name": "other"}]}', False),
        ('{"GeneratedBy": [{"Version": "1"}]}', False),
        ('{"GeneratedBy": ["sct_deepspine"]}', False),
        ('{"GeneratedBy": "sct_deepspine"}', False),
        ("{}", False),
        ('["sct_deepspine"]', False),
        ("no JSON", False),
        (None, False),
    ],
)
def test_a_record_is_ours_if_it_says_so(text, is_ours, tmp_path):
    path = tmp_path / "t2_discs.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert (read_sidecar(path) is not None) == is_ours


@pytest.mark.parametrize("files", ["[]", "null", '"t2_discs.nii.gz"', "3"])
def test_a_record_edited_by_hand_records_no_files(files, tmp_path):
    path = tmp_path / "t2_discs.json"
    path.write_text(f'{{"GeneratedBy": [{{"Name": "sct_deepspine"}}], "files": {files}}}', encoding="utf-8")
    assert recorded_files(path) == {}


def test_files_of_another_program_are_not_recorded_as_ours(tmp_path):
    path = tmp_path / "t2_discs.json"
    path.write_text(
        '{"GeneratedBy": [{"Name": "other"}], "files": {"t2_discs.nii.gz": "0"}}', encoding="utf-8"
    )
    assert recorded_files(path) == {}
    path.write_text('{"GeneratedBy": [{"Name": "sct_deepspine"}], "files": {"a.csv": "0"}}', encoding="utf-8")
    assert recorded_files(path) == {"a.csv": "0"}

from tests.zoo.checkpoints.saved import small_model, small_optimizer
from zoo.checkpoints import History


def save(history, step):
    model = small_model()
    return history.save(
        step, model=model, tokenizer=None, optimizer=small_optimizer(model), training_state={}, config={}
    )


def test_the_newest_few_stay_in_the_order_of_their_steps(tmp_path):
    history = History(tmp_path / "checkpoints", keep=2)
    assert (history.steps(), history.newest()) == ([], None)
    for step in (5, 20, 1_000_000):
        folder = save(history, step)
        assert history.newest() == folder
        assert (tmp_path / "checkpoints" / "last").resolve() == folder.resolve()
    assert history.steps() == [20, 1_000_000]


def test_only_checkpoints_count_as_checkpoints(tmp_path):
    history = History(tmp_path)
    for name in ("step_best", "step_000003.old", "notes"):
        (tmp_path / name).mkdir()
    save(history, 7)
    assert history.steps() == [7]
    assert (tmp_path / "notes").is_dir()


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    (tmp_path / ".partial-step_000003-123").mkdir(parents=True)
    (tmp_path / ".partial-last").symlink_to("nowhere")
    save(History(tmp_path), 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_000007"]

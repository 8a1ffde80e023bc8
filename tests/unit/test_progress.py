"""Progress: which display is chosen, how often it shows something, and what it shows."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from html.parser import HTMLParser

import dask
import pytest
from rich.console import Console

from dcompute.errors import UsageError
from dcompute.progress import BarProgress, HtmlProgress, LogProgress, QuietProgress, Snapshot, as_html, duration, figures, make_progress


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream that nobody can write to any more."""

    def write(self, text: str) -> int:
        raise OSError(28, "no space left on device")


def noon() -> time.struct_time:
    """The time of day that lines carry in these tests."""
    return time.struct_time((2026, 1, 1, 12, 0, 0, 3, 1, 0))


def log(stream: io.StringIO, clock: Clock) -> LogProgress:
    """A log with a clock that stands still."""
    return LogProgress(stream, clock=clock, now=noon)


SOME = Snapshot(done=1200, failed=3, retrying=2, running=4, total=5000, rate=56.4, seconds_left=67)


class TestChoice:
    @pytest.fixture(autouse=True)
    def _a_plain_terminal(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")

    def test_a_terminal_gets_a_bar(self):
        """Somebody watches a terminal."""
        show = make_progress("auto", stream=Terminal())
        assert isinstance(show, BarProgress)
        show.close(None)

    def test_a_file_gets_lines(self):
        """What is no terminal is a log."""
        assert isinstance(make_progress("auto", stream=io.StringIO()), LogProgress)

    def test_a_terminal_that_cannot_move_its_cursor_gets_lines(self, monkeypatch):
        """``TERM=dumb`` (an editor's shell) shows control characters as they are."""
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(make_progress("auto", stream=Terminal()), LogProgress)

    def test_a_second_run_on_the_same_terminal_gets_lines(self):
        """Two bars would draw over each other; when the first is done the next gets one again."""
        first = make_progress("auto", stream=Terminal())
        assert isinstance(make_progress("auto", stream=Terminal()), LogProgress)
        first.close(None)
        assert isinstance(make_progress("auto", stream=Terminal()), BarProgress)

    def test_the_setting_decides_where_nothing_is_said(self):
        """``dcompute.progress`` holds for every run that does not say otherwise."""
        with dask.config.set({"dcompute.progress": "quiet"}):
            assert isinstance(make_progress(), QuietProgress)

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        """A misspelt display is an error, not silence."""
        with pytest.raises(UsageError, match=r"'bra'.*bar, log"):
            make_progress("bra")


class TestFigures:
    def test_say_all_there_is(self):
        """Done, failed, retrying, running, rate and time left."""
        assert figures(SOME) == "1,200 of 5,000 done, 3 failed, 2 retrying, 4 running, 56 items/s, 1 min 07 s left"

    def test_leave_out_what_is_not(self):
        """Noughts and what cannot be told take no room."""
        assert figures(Snapshot(done=7)) == "7 done"

    def test_an_ended_run_has_no_time_left(self):
        """When all is done nobody wants to read `0 s left`."""
        assert "left" not in figures(Snapshot(done=4, failed=1, total=5, seconds_left=0.0))

    @pytest.mark.parametrize(("rate", "text"), [(1234.6, "1,235 items/s"), (3.21, "3.2 items/s"), (0.001, "3.6 items/h")])
    def test_a_rate_is_readable_at_any_speed(self, rate, text):
        """From a million items to a few a day."""
        assert text in figures(Snapshot(rate=rate))

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.2, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3660, "1 h 01 min"), (90000, "1 d 01 h"), (-3, "0 s")],
    )
    def test_a_duration_has_at_most_two_units(self, seconds, text):
        """As people say it."""
        assert duration(seconds) == text


class TestLog:
    def test_a_line_every_ten_seconds(self):
        """However often it is updated, a line comes when ten seconds have passed since the last."""
        stream, clock = io.StringIO(), Clock()
        show = log(stream, clock)
        for _ in range(205):
            show.update(SOME)
            clock.now += 0.1
        assert stream.getvalue().count("\n") == 2
        assert stream.getvalue().splitlines()[0] == f"12:00:00 dcompute: {figures(SOME)}"

    def test_a_long_pause_is_one_line(self):
        """A process that was stopped for an hour does not catch up on lines."""
        stream, clock = io.StringIO(), Clock()
        show = log(stream, clock)
        clock.now += 3600
        for _ in range(5):
            show.update(SOME)
            clock.now += 1
        assert stream.getvalue().count("\n") == 1

    def test_notes_come_at_once_and_empty_ones_never(self):
        """What a person must know waits for no interval."""
        stream = io.StringIO()
        show = log(stream, Clock())
        show.note("waiting for a worker")
        show.note("")
        assert stream.getvalue() == "12:00:00 dcompute: waiting for a worker\n"

    def test_the_last_line_says_how_it_ended_and_comes_once(self):
        """Closing twice, or updating after it, adds nothing."""
        stream, clock = io.StringIO(), Clock()
        show = log(stream, clock)
        last = Snapshot(done=5, total=5, state="finished")
        show.close(last)
        show.close(last)
        clock.now += 60
        show.update(last)
        assert stream.getvalue() == "12:00:00 dcompute: finished: 5 of 5 done\n"

    @pytest.mark.parametrize(
        ("last", "text"),
        [
            (Snapshot(state="finished", before=1), "up to date: 1 item"),
            (Snapshot(state="finished", before=1200), "up to date: 1,200 items"),
            (Snapshot(state="finished", before=3, before_failed=1), "up to date: 3 items, of which 1 failed"),
            (Snapshot(state="finished"), "finished: there were no inputs"),
            (Snapshot(state="cancelled", before=5), "cancelled: 0 done"),
        ],
    )
    def test_a_run_with_nothing_to_do_says_so(self, last, text):
        """Not that nothing of nothing was done."""
        stream = io.StringIO()
        log(stream, Clock()).close(last)
        assert stream.getvalue() == f"12:00:00 dcompute: {text}\n"

    def test_a_full_disk_ends_no_run(self):
        """A log that cannot be written is no reason to stop."""
        clock = Clock()
        show = log(Gone(), clock)
        clock.now += 11
        show.update(SOME)
        show.note("still here")
        show.close(SOME)


class TestBar:
    def bar(self, clock: Clock, stream: io.StringIO) -> BarProgress:
        """A bar on a terminal that a test can read."""
        return BarProgress(
            stream, clock=clock, console=Console(file=stream, force_terminal=True, width=160, no_color=True, legacy_windows=False)
        )

    def test_draws_share_and_figures(self):
        """The picture holds the percentage and the figures."""
        stream = io.StringIO()
        show = self.bar(Clock(), stream)
        show.update(SOME)
        show.close(None)
        assert "24%" in stream.getvalue()
        assert "3 failed" in stream.getvalue()

    def test_draws_at_most_ten_times_a_second(self):
        """Updates that come too quickly cost nothing."""
        clock, stream = Clock(), io.StringIO()
        show = self.bar(clock, stream)
        show.update(Snapshot(done=1, total=99))
        show.update(Snapshot(done=2, total=99))
        assert "2 of 99" not in stream.getvalue()
        clock.now += 0.2
        show.update(Snapshot(done=3, total=99))
        assert "3 of 99" in stream.getvalue()
        show.close(None)

    def test_the_last_picture_is_drawn_however_soon_it_comes(self):
        """A run never ends at 98 %."""
        stream = io.StringIO()
        show = self.bar(Clock(), stream)
        show.update(Snapshot(done=1, total=2))
        show.close(Snapshot(done=2, total=2, state="finished"))
        assert "100%" in stream.getvalue()
        assert "finished: 2 of 2 done" in stream.getvalue()

    def test_a_run_with_nothing_to_do_has_a_full_bar(self):
        """Up to date is 100 %."""
        stream = io.StringIO()
        show = self.bar(Clock(), stream)
        show.close(Snapshot(state="finished", before=12))
        assert "100%" in stream.getvalue()
        assert "up to date: 12 items" in stream.getvalue()

    def test_gives_the_cursor_back(self):
        """After the end the terminal shows its cursor again."""
        stream = io.StringIO()
        show = self.bar(Clock(), stream)
        show.update(SOME)
        show.close(None)
        assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")

    def test_notes_are_shown_as_they_are(self):
        """Brackets in a note are text, not a style."""
        stream = io.StringIO()
        show = self.bar(Clock(), stream)
        show.note("item [bold]x[/bold] waits")
        show.close(None)
        assert "item [bold]x[/bold] waits" in stream.getvalue()

    def test_a_terminal_that_goes_away_ends_no_run(self):
        """A closed window is no reason to stop."""
        show = BarProgress(Gone(), clock=Clock(), console=Console(file=Gone(), force_terminal=True))
        show.update(SOME)
        show.note("still here")
        show.close(SOME)


class Balanced(HTMLParser):
    """Counts open elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestHtml:
    def test_is_shown_once_and_then_brought_up_to_date(self):
        """One output in the cell, updated in place at most twice a second."""
        pages: list[str] = []
        shown: list[str] = []

        def display(page: str):
            shown.append(page)
            return pages.append

        clock = Clock()
        show = HtmlProgress(clock=clock, display=display)
        for count in range(5):
            show.update(Snapshot(done=count, total=9))
            clock.now += 0.3
        show.close(Snapshot(done=9, total=9, state="finished"))
        assert len(shown) == 1
        assert len(pages) == 4
        assert "finished: 9 of 9 done" in pages[-1]

    def test_is_well_formed_and_harmless(self):
        """Text from elsewhere cannot become markup."""
        page = as_html(replace(SOME, note="<script>alert(1)</script>"))
        parser = Balanced()
        parser.feed(page)
        assert parser.open == []
        assert "<script>" not in page

    def test_an_unknown_total_is_a_busy_bar(self):
        """While the inputs cannot be counted there is no share to show."""
        assert "value=" not in as_html(Snapshot(done=3))
        assert 'value="3"' in as_html(Snapshot(done=3, total=0))

    def test_a_note_holds_until_the_next_one(self):
        """What a run waited for is not shown when it has come, nor under the last figures."""
        pages: list[str] = []
        show = HtmlProgress(clock=Clock(), display=lambda page: pages.append)
        show.note("checking workers")
        assert "checking workers" in pages[-1]
        show.note("2 of 3 workers take no part")
        assert "checking workers" not in pages[-1]
        show.note("")
        assert "<div>" not in pages[-1][5:]
        show.note("ending: enough")
        show.close(Snapshot(done=9, total=9, state="finished"))
        assert "ending" not in pages[-1]

    def test_a_run_with_nothing_to_do_has_a_full_bar(self):
        """Up to date is no bar without an end."""
        page = as_html(Snapshot(state="finished", before=1200))
        assert 'value="1" max="1"' in page
        assert "up to date: 1,200 items<" in page

    def test_a_status_shows_what_it_waits_for(self):
        """A picture of one moment has the note in it."""
        assert "no worker" in as_html(Snapshot(note="no worker"))


def test_quiet_is_quiet(capsys):
    """Nothing is written at all."""
    show = make_progress("quiet")
    show.update(SOME)
    show.note("hello")
    show.close(SOME)
    assert capsys.readouterr() == ("", "")

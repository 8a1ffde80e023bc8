"""The command ``dcompute``, which is there as ``dask dcompute`` too."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

import dcompute as package
from dcompute import ending
from dcompute.cli import clusters, doctor, exits, history, logs, options, plan, quarantine, report, run, show, upkeep, worker
from dcompute.cli.signals import terminated_as_interrupted
from dcompute.errors import DcomputeError, InternalError, ItemError


class Commands(click.Group):
    """A group of commands that ends every error with its message and its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands in the order in which they are needed."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises becomes an exit code."""
        try:
            with terminated_as_interrupted():
                return super().invoke(ctx)
        except click.Abort:
            click.echo("Aborted: nothing was changed.", err=True)
            ctx.exit(exits.Exit.INTERRUPTED)
        except KeyboardInterrupt:
            ending.leave(exits.Exit.INTERRUPTED)
            ctx.exit(exits.Exit.INTERRUPTED)
        except BrokenPipeError:
            _leave_quietly()
            ctx.exit(exits.Exit.OK)
        except DcomputeError as error:
            _tell(error, debug=bool(ctx.params.get("debug")))
            ctx.exit(exits.of_error(error))
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001  an error that nobody foresaw must not end with code 1, which says that items failed
            traceback.print_exc()
            click.echo(f"Error: {InternalError.__doc__} ({type(error).__name__} above)", err=True)
            ctx.exit(exits.Exit.BROKEN)


def _tell(error: DcomputeError, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
        return
    # of an item's error the words are the user's own
    click.echo(f"Error: {error.message if isinstance(error, ItemError) else options.in_options(error.message)}", err=True)
    if isinstance(error, ItemError) and error.traceback.rstrip() not in error.message:
        click.echo(error.traceback.rstrip(), err=True)


def _leave_quietly() -> None:
    # Whoever read our output (`| head`) has enough; Python would complain once more when it flushes at exit.
    sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123


@click.group(
    "dcompute", cls=Commands, epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package.__version__, "--version", prog_name="dcompute")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def dcompute(debug: bool) -> None:
    """Run a function over any number of inputs on a Dask cluster and get a Parquet dataset back.

    Kill anything, run the same line again, and it goes on: nothing that finished is lost or done twice.

    \b
    Examples:
      dcompute run flux.py:flux 'raw/*.csv' out/flux     run it, or go on with it
      dcompute status out/flux                           how far it is
      dcompute failures out/flux --by error              what failed, grouped
      dcompute results out/flux --json | jq .            what came out
      dcompute cancel out/flux                           stop the run that is at work on it
      dcompute compact out/flux                          few large files in place of many small ones
    """


dcompute.add_command(run.run)
for command in (
    plan.COMMAND,
    *show.COMMANDS,
    logs.COMMAND,
    *quarantine.COMMANDS,
    *history.COMMANDS,
    *upkeep.COMMANDS,
    *report.COMMANDS,
    *clusters.COMMANDS,
    *doctor.COMMANDS,
    worker.worker,
):
    dcompute.add_command(command)


def main() -> None:
    """Run the command line; ends the process."""
    dcompute(prog_name="dcompute")

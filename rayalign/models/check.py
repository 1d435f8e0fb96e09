"""What can be known of a run's model before any actor loads it. Imports diffusers, reads no weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.hub import hub_silence
from rayalign.models.families import find_family, read_index, resolve_path
from rayalign.models.family import Family
from rayalign.models.folder_check import check_folder, check_other_vae, check_part
from rayalign.models.kernels import check_steps, make_kernel
from rayalign.toy import TOY_MODELS
from rayalign.weight_files import Shapes, part_files, tensor_shapes

# SD 1.5's VAE still has these in its file; diffusers renames them (and makes matrices of 1 x 1 convolutions).
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def check_model(config: RunConfig) -> Family:
    """The run's family, once its files, sizes, VAE and schedule were looked through.

    Raises ConfigError, naming the file or setting, if the model cannot be read, is damaged, or does not fit the run.
    """
    path = resolve_path(config.model.path)
    family = find_family(config.model.path, config.model.family)
    local = Path(path).is_dir() and family.name != "stub"
    if local:
        check_folder(Path(path), family, read_index(config.model.path))
    if config.model.vae is not None and family.name != "stub":
        _check_vae(config.model.vae, path)
    _check_schedule(config, family, path)
    if local and config.model.path not in TOY_MODELS:
        _check_tensors(Path(path), family, read_index(config.model.path))
    return family


def _check_vae(value: str, path: str) -> None:
    from diffusers import AutoencoderKL

    if Path(value).is_dir():
        check_part(Path(value), "diffusion_pytorch_model", "model.vae")
    try:
        other = AutoencoderKL.load_config(value, local_files_only=_local_only(value))
        own = AutoencoderKL.load_config(path, subfolder="vae", local_files_only=_local_only(path))
    except Exception as error:  # the hub client raises many kinds: no network, no such model, no VAE
        fix = f"no VAE can be read there ({error}); set a folder or hub id of one, or null"
        raise ConfigError("model.vae", value, fix) from error
    check_other_vae(own, other, value)


def _local_only(path: str) -> bool:
    """Whether the hub must not be asked for a model: a folder, or a hub that is silent."""
    return Path(path).is_dir() or bool(hub_silence())


def _check_schedule(config: RunConfig, family: Family, path: str) -> None:
    """The steps that are tuned, on the model's own schedule."""
    if family.name == "stub":
        scheduler = family.load(path, None).scheduler  # type: ignore[arg-type]
    else:
        from diffusers import DDIMScheduler

        try:
            only = _local_only(path)
            found = DDIMScheduler.load_config(path, subfolder="scheduler", local_files_only=only)
            scheduler = SimpleNamespace(config=found)
        except Exception as error:  # as above
            fix = f"its scheduler cannot be read ({error}); fetch the model again"
            raise ConfigError("model.path", path, fix) from error
    try:
        kernel = make_kernel(family.process, scheduler, config.sampler)
    except (ValueError, TypeError, NotImplementedError) as error:
        fix = f"this model's schedule does not take it ({error}); set fewer steps, or another model"
        raise ConfigError("sampler.num_steps", config.sampler.num_steps, fix) from error
    check_steps(kernel, config.pairs)


def _check_tensors(folder: Path, family: Family, index: dict[str, Any]) -> None:
    """Every weight that a part's config asks for is in its file, in that shape: others would be drawn at random."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    for part in (family.denoiser_part, "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        library, name = index.get(part) or (None, None)
        if library not in libraries or not (folder / part).is_dir():
            continue
        kind = getattr(libraries[library], str(name), None)
        if kind is None:
            fix = f"model_index.json names {library}.{name} for {part}, which is not there; set a model that has one"
            raise ConfigError("model.path", str(folder), fix)
        try:
            with _quiet():
                missing = (_missing_diffusers if library == "diffusers" else _missing_transformers)(kind, folder / part)
        except ConfigError:
            raise
        except Exception as error:  # a config of any kind can raise anything
            fix = f"no {name} can be made of its config.json ({type(error).__name__}: {error}); fetch the model again"
            raise ConfigError("model.path", str(folder / part), fix) from error
        if missing:
            fix = (
                f"{len(missing)} weights of a {name} are not in its files or have another shape than config.json says, "
                f"{missing[0]} the first; fetch the model again"
            )
            raise ConfigError("model.path", str(folder / part), fix)


def _missing_diffusers(kind: Any, place: Path) -> list[str]:
    from accelerate import init_empty_weights

    files = part_files(place, "diffusion_pytorch_model")
    if files[0].suffix != ".safetensors":
        return []  # names of a pickle are known once it is loaded
    found: Shapes = {}
    for file in files:
        found |= {_renamed(name): shape for name, shape in tensor_shapes(file).items()}
    with init_empty_weights():
        wanted = kind.from_config(kind.load_config(place)).state_dict()
    return sorted(name for name, value in wanted.items() if not _fits(tuple(value.shape), found.get(name)))


def _missing_transformers(kind: Any, place: Path) -> list[str]:
    """transformers renames on its own; on the meta device it reads no weight."""
    _, found = kind.from_pretrained(place, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True)
    return sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})


def _renamed(name: str) -> str:
    for old, new in OLD_ATTENTION.items():
        name = name.replace(old, new) if "attentions" in name else name
    return name


def _fits(wanted: tuple[int, ...], found: tuple[int, ...] | None) -> bool:
    return found is not None and (found == wanted or found == (*wanted, 1, 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries report and show bars for what is answered here in one line."""
    import diffusers
    import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [logging.get_verbosity() for logging in libraries]
    for logging in libraries:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, level in zip(libraries, before, strict=True):
            logging.set_verbosity(level)
            logging.enable_progress_bar()

"""The encoder's arithmetic: against an independent implementation, and against itself where padding must not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import Encoder, EncoderError, files
from encoder.bag import Bag
from encoder.model import PRESETS, Classifier, EncoderConfig, EncoderModel, MaskedLM, mask_tokens, mean_pool

TOKENIZER = Path("weights/tokenizer.json")
LOCAL = EncoderConfig(d_model=64, n_layers=3, n_heads=2, d_ff=96, max_length=128, global_every=2, window=16)


@pytest.fixture(params=[PRESETS["encoder-tiny"], LOCAL], ids=["global", "local"])
def model(request):
    torch.manual_seed(0)
    return EncoderModel(request.param).eval()


def saved(model: EncoderModel | Bag, folder: Path) -> Path:
    files.save(model, TOKENIZER, folder, dtype=torch.float32)
    return folder


def test_equals_an_independent_modernbert(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    other = transformers.ModernBertModel.from_pretrained(saved(model, tmp_path)).eval()
    ids = torch.randint(16, 16_384, (3, 100))
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[0, 40:] = False
    with torch.no_grad():
        ours, theirs = model(ids, keep), other(ids, keep.long()).last_hidden_state
    assert torch.allclose(ours[keep], theirs[keep], atol=1e-5)


def test_the_classifier_equals_an_independent_one(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = Classifier(model, n_classes=3).eval()
    config = transformers.AutoConfig.from_pretrained(saved(model, tmp_path), num_labels=3, classifier_pooling="mean")
    other = transformers.ModernBertForSequenceClassification(config).eval()
    other.load_state_dict(ours.state_dict())
    ids = torch.randint(16, 16_384, (3, 100))
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[0, 40:] = False
    with torch.no_grad():
        assert torch.allclose(ours(ids, keep), other(ids, keep.long()).logits, atol=1e-5)


def test_padding_changes_nothing(model):
    text = torch.randint(16, 16_384, (1, 37))
    padded = torch.full((2, 120), model.config.pad_id)
    padded[0, :37] = text
    padded[1] = torch.randint(16, 16_384, (120,))
    keep = padded != model.config.pad_id
    with torch.no_grad():
        alone = mean_pool(model(text, torch.ones_like(text, dtype=torch.bool)), torch.ones_like(text, dtype=torch.bool))
        together = mean_pool(model(padded, keep), keep)
    assert torch.allclose(alone[0], together[0], atol=1e-5)


def test_a_local_layer_sees_its_window_alone():
    for keep in (None, torch.ones(1, 100, dtype=torch.bool)):
        mask = EncoderModel(LOCAL).attention_mask(100, keep, is_global=False)
        assert mask is not None
        assert mask[0, 0, 50].nonzero().flatten().tolist() == list(range(42, 59))


def test_no_mask_is_a_mask_of_nothing(model):
    ids = torch.randint(16, 16_384, (2, 100))
    with torch.no_grad():
        assert torch.allclose(model(ids), model(ids, torch.ones_like(ids, dtype=torch.bool)), atol=1e-5)


def test_what_is_too_long_is_refused(model):
    with pytest.raises(ValueError, match="129 tokens"):
        model(torch.full((1, 129), 16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same_vectors(model, tmp_path):
    encoder = Encoder.load(saved(model, tmp_path), torch.float32)
    here = encoder.encode(TEXTS)
    encoder.model.cuda()
    assert np.abs(encoder.encode(TEXTS) - here).max() < 1e-4


def test_masking_statistics():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(16, 16_384, (200, 500), generator=generator)
    ids[:, 0] = 1  # <|bos|>
    masked, places, targets = mask_tokens(ids, mask_id=3, vocab_size=16_384, n_special=16, generator=generator)
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen.view(-1)[places] = True
    assert len(places) == chosen.sum() == 0.3 * ids.numel(), "always equally many, none of them twice"
    assert chosen[:, 1:250].float().mean() == pytest.approx(0.3, abs=0.01), "everywhere alike"
    assert not chosen[:, 0].any(), "special tokens are never hidden"
    assert torch.equal(targets, ids.flatten()[places]) and torch.equal(masked[~chosen], ids[~chosen])
    assert (masked[chosen] == 3).float().mean() == pytest.approx(0.8, abs=0.01)
    assert (masked[chosen] == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.01)
    assert masked[chosen][masked[chosen] != 3].min() >= 16


def test_masked_lm_learns_a_tiny_text():
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2, d_ff=64, max_length=32))
    generator = torch.Generator().manual_seed(0)
    # Rows count up from anywhere: a hidden token follows from its neighbours, and only by looking at them.
    ids = 16 + (torch.arange(24) + torch.randint(48, (64, 1), generator=generator)) % 48
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(200):
        loss = model(*mask_tokens(ids, 3, 64, 16, generator=generator))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_classifier_learns_which_of_two_words_comes_first():
    torch.manual_seed(0)
    config = EncoderConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2, d_ff=64, max_length=32)
    generator = torch.Generator().manual_seed(0)

    def examples(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids = torch.randint(20, 64, (n, 12), generator=generator)
        places = torch.rand(n, 8, generator=generator).argsort(1)[:, :2]  # the same words in either order
        ids.scatter_(1, places, torch.tensor([16, 17]).expand(n, 2))
        keep = torch.arange(12) < torch.randint(8, 13, (n, 1), generator=generator)
        return ids * keep, keep, (places[:, 0] < places[:, 1]).long()

    model = Classifier(EncoderModel(config), n_classes=2)
    ids, keep, classes = examples(400)
    unseen = examples(200)

    def accuracy() -> float:
        with torch.no_grad():
            return (model(*unseen[:2]).argmax(1) == unseen[2]).float().mean().item()

    assert accuracy() < 0.65
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        torch.nn.functional.cross_entropy(model(ids, keep), classes).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert accuracy() > 0.9


TEXTS = ["Geralt of Rivia", "", "Scoia'tael <|mask|> <|end|> in Flotsam. " * 30, "Éibhear Hattori", "a"]


def test_sentence_transformers_gives_the_same_vectors(model, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(saved(model, tmp_path)), device="cpu").encode(TEXTS)
    ours = Encoder.load(tmp_path, torch.float32).encode(TEXTS)
    assert np.abs(ours - theirs).max() < 1e-5


def test_saved_and_loaded_is_identical(model, tmp_path):
    first = Encoder.load(saved(model, tmp_path), torch.float32)
    again = Encoder.load(saved(first.model, tmp_path / "again"), torch.float32)
    assert np.array_equal(first.encode(TEXTS), again.encode(TEXTS))
    assert first.model_hash == again.model_hash
    assert again.model.config == model.config


def test_order_and_batching_change_nothing(model, tmp_path):
    encoder = Encoder.load(saved(model, tmp_path), torch.float32)
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_half_precision_stays_close(model, tmp_path):
    folder = saved(model, tmp_path)
    exact, half = (Encoder.load(folder, dtype).encode(TEXTS) for dtype in (torch.float32, torch.bfloat16))
    assert (exact * half).sum(1).min() > 0.999


@pytest.mark.parametrize("name", [files.WEIGHTS, files.CONFIG, files.TOKENIZER])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_damaged_folders_name_the_remedy(model, tmp_path, name, damage):
    path = saved(model, tmp_path) / name
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"not what it should be")
    with pytest.raises(EncoderError, match="Restore") as caught:
        Encoder.load(tmp_path)
    assert "\n" not in str(caught.value)

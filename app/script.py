"""What the page does in the browser: one script that listens to the whole conversation.

Gradio runs it when the conversation's ``gr.HTML`` is first drawn, with ``element`` (the conversation), ``trigger``
(starts an event here), ``server`` (calls ``app.chat``'s functions) and ``watch``.  Buttons are told apart by class.
Gradio compares the old HTML with the new one element by element, so whatever the reader opened must be opened again
after each drawing.
"""

ON_LOAD = r"""
const opened = new Map();  // id of a source or form -> whether the reader opened or closed it
let shown = element.querySelectorAll('.turn').length;
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const scroll = (target, block) =>
  target.scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth', block });

// The quote comes into view in its box, once: whoever scrolls on stays where he is.
const seen = new WeakSet();
const showQuote = (source) => {
  const mark = source.querySelector('mark');
  const box = source.querySelector('blockquote');
  if (!mark || !box || !box.clientHeight) return;
  seen.add(box);
  const top = mark.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop;
  box.scrollTop = Math.max(0, top - Math.max(40, (box.clientHeight - mark.offsetHeight) / 2));
};

const again = () => {
  for (const [id, open] of opened) {
    const node = document.getElementById(id);
    if (!node || !element.contains(node)) opened.delete(id);
    else if (node.tagName === 'DETAILS') node.open = open;
    else node.hidden = !open;
  }
  element.querySelectorAll('.source[open]').forEach((source) => {
    if (!seen.has(source.querySelector('blockquote'))) showQuote(source);
  });
  const turns = element.querySelectorAll('.turn');
  if (turns.length > shown) scroll(turns[turns.length - 1], 'start');
  shown = turns.length;
};
watch('value', again);
element.addEventListener('toggle', (event) => {
  if (event.target.open && !seen.has(event.target.querySelector('blockquote'))) showQuote(event.target);
}, true);
// What Gradio leaves out: radio buttons are one group (one tab stop, arrow keys), an accordion says whether it is open,
// and what has a label has a role.
const mend = () => {
  document.querySelectorAll('#canon, #length').forEach((group) =>
    group.querySelectorAll('input[type=radio]').forEach((radio) => { radio.name = group.id; }));
  document.querySelectorAll('.gr-accordion > button.label-wrap').forEach((button) =>
    button.setAttribute('aria-expanded', String(button.nextElementSibling?.style.display !== 'none')));
  document.querySelectorAll('div[aria-label="Empty value"]:not([role])').forEach((empty) =>
    empty.setAttribute('role', 'img'));
};
let mending = 0;
new MutationObserver(() => {
  clearTimeout(mending);
  mending = setTimeout(mend, 50);
}).observe(element.closest('.gradio-container'), { childList: true, subtree: true });
document.addEventListener('click', () => setTimeout(mend, 50));
mend();

const say = (button, text) => {
  const word = button.querySelector('.word');
  const before = button.getAttribute('aria-label');
  if (word) word.textContent = text;
  button.setAttribute('aria-label', text);
  const live = element.querySelector('[role=status]');
  if (live) live.textContent = text;
  setTimeout(() => {
    if (word) word.textContent = before;
    button.setAttribute('aria-label', before);
  }, 1600);
};

const copy = async (button, text, done) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without https, or refused
    const area = document.createElement('textarea');
    area.value = text;
    area.setAttribute('readonly', '');
    document.body.appendChild(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  say(button, done);
};

const openSource = (id) => {
  const source = document.getElementById(id);
  if (!source) return;
  source.open = true;
  opened.set(id, true);
  element.querySelectorAll('.source.lit').forEach((other) => other.classList.remove('lit'));
  source.classList.add('lit');
  scroll(source, 'nearest');
  source.querySelector('summary').focus({ preventScroll: true });
  showQuote(source);
};

const openArticle = async (button) => {
  const dialog = document.getElementById('article');
  const body = dialog.querySelector('.body');
  body.textContent = 'Opening the article…';
  dialog.showModal();
  const { passage, start, end } = button.dataset;
  try {
    body.innerHTML = await server.article({ passage, start: Number(start), end: Number(end) });
  } catch {
    body.textContent = 'The article could not be opened. Please try again.';
  }
  body.scrollTop = 0;
  const mark = body.querySelector('mark');
  if (mark) mark.scrollIntoView({ block: 'center' });
  body.focus({ preventScroll: true });
};

element.addEventListener('click', (event) => {
  const button = event.target.closest('button, summary');
  if (!button || !element.contains(button)) return;
  const is = (name) => button.classList.contains(name);
  const { turn, source, question, text } = button.dataset;
  if (button.tagName === 'SUMMARY') opened.set(button.parentElement.id, !button.parentElement.open);
  else if (is('cite')) openSource(source);
  else if (is('whole')) openArticle(button);
  else if (is('ask')) trigger('ask', { question });
  else if (is('retry')) trigger('retry');
  else if (is('edit')) trigger('edit');
  else if (is('inside')) trigger('inside');
  else if (is('copy')) copy(button, text, 'Copied');
  else if (is('share')) {
    const address = new URL(location.pathname, location.origin);
    address.searchParams.set('q', question);
    copy(button, address.href, 'Link copied');
  } else if (is('like') || is('dislike')) {
    const form = document.getElementById('reasons-' + turn);
    const pressed = button.getAttribute('aria-pressed') === 'true';
    const opens = is('dislike') && !pressed && form.hidden;
    form.hidden = !opens;
    opened.set(form.id, opens);
    if (opens) form.querySelector('input').focus();
    else if (pressed) trigger('feedback', { turn, verdict: '' });
    else if (is('like')) trigger('feedback', { turn, verdict: 'like' });
  } else if (is('cancel')) {
    const form = button.closest('form');
    form.hidden = true;
    opened.set(form.id, false);
    element.querySelector(`.dislike[aria-controls="${form.id}"]`).focus();
  }
});

element.addEventListener('submit', (event) => {
  const form = event.target.closest('.reasons');
  if (!form) return;
  event.preventDefault();
  const reason = form.querySelector('input:checked');
  trigger('feedback', {
    turn: form.dataset.turn,
    verdict: 'dislike',
    reason: reason ? reason.value : '',
    comment: form.querySelector('textarea').value,
  });
  form.hidden = true;
  opened.set(form.id, false);
  element.querySelector(`.dislike[aria-controls="${form.id}"]`).focus();
});
"""

ON_ARRIVAL = """
(kept, question, ...rest) => {
  const address = new URL(location.href);
  question = address.searchParams.get('q') || '';
  if (question) {  // asked once, not again at every reload
    address.searchParams.delete('q');
    history.replaceState(null, '', address);
  }
  return [kept, question, ...rest];
}
"""
"""Takes the question of a shared link out of the address."""

SAVE_FILE = """
(text) => {
  if (!text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/markdown' }));
  link.download = `cirilla-${new Date().toISOString().slice(0, 10)}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""
"""Hands the reader a file that exists nowhere but in his browser."""

TO_QUESTION = "() => document.querySelector('#question textarea')?.focus()"

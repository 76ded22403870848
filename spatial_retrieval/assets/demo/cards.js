// A grid of pictures: choosing one marks it at once and tells the server which.
element.addEventListener('click', (e) => {
  const card = e.target.closest('.sr-card');
  if (!card || !element.contains(card)) return;
  element.querySelectorAll('.sr-card').forEach((other) => {
    other.classList.toggle('sr-chosen', other === card);
    other.setAttribute('aria-pressed', other === card);
  });
  trigger('choose', { index: Number(card.dataset.index) });
});

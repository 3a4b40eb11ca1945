// The rendering of overlay.draw_attention, as a transparent layer: a mix of the two layers in
// proportion to the map. It is linear in the map, so the small map can be drawn and then scaled.
const drawAttention = (canvas, attention) => {
  const [rows, columns] = [attention.length, attention[0].length];
  const largest = Math.max(...attention.flat()) || 1;
  const [warm, warmth] = props.attended;
  const [cold, coldness] = props.unattended;
  const small = make("canvas", { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  attention.flat().forEach((value, i) => {
    const w = value / largest;
    const opacity = w * warmth + (1 - w) * coldness;
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = (w * warmth * warm[c] + (1 - w) * coldness * cold[c]) / opacity;
    }
    pixels.data[4 * i + 3] = 255 * opacity;
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [columns * 32, rows * 32];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
};

// The image with a frame around what the network saw of it, and the heat over that part.

import { heatPicture } from "./draw.js";

const HIGHEST = 460; // CSS pixels
const FINEST = 2; // device pixels a CSS pixel: more is not seen

export class Stage {
  /** canvas: where to draw; it takes the width of its parent, and the image's proportions. */
  constructor(canvas) {
    this.canvas = canvas;
    this.strength = 0.7;
    this.isOverlaid = true;
    this.heat = null;
    this.picture = null;
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  /**
   * picture: anything that can be drawn, upright; size: {width, height} in the units of box {left, top, side};
   * inputSide: the pixels along a side of what the network gets of the box.
   */
  show(picture, size, box, inputSide) {
    [this.picture, this.size, this.box, this.inputSide, this.heat] = [picture, size, box, inputSide, null];
    this.draw();
  }

  /** heat: {rows, columns, values}, or null for none. */
  lay(heat) {
    this.heat = heat && heatPicture(heat);
    this.draw();
  }

  draw() {
    if (!this.picture) {
      return;
    }
    const { width, height } = this.size;
    const scale = Math.min(this.canvas.parentElement.clientWidth / width, HIGHEST / height);
    const fine = Math.min(window.devicePixelRatio || 1, FINEST);
    const [shownWidth, shownHeight] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    [this.canvas.width, this.canvas.height] = [shownWidth * fine, shownHeight * fine];
    this.canvas.style.width = `${shownWidth}px`;
    this.canvas.style.height = `${shownHeight}px`;
    const context = this.canvas.getContext("2d");
    // A tiny image is shown with its pixels, unless the network gets it enlarged, and so smooth.
    context.imageSmoothingEnabled = scale < 4 || this.box.side < this.inputSide;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
    const ratio = this.canvas.width / width;
    const [x, y, side] = [this.box.left * ratio, this.box.top * ratio, this.box.side * ratio];
    this.dimOutside(context, x, y, side, fine);
    if (this.isOverlaid && this.heat) {
      context.imageSmoothingEnabled = true;
      context.globalAlpha = this.strength;
      context.drawImage(this.heat, x, y, side, side);
      context.globalAlpha = 1;
    }
  }

  dimOutside(context, x, y, side, fine) {
    const { width, height } = this.canvas;
    if (side >= width - 1 && side >= height - 1) {
      return;
    }
    context.fillStyle = "rgb(20 22 25 / 0.45)";
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(x, y, side, side);
    context.fill("evenodd");
    context.strokeStyle = "rgb(255 255 255 / 0.85)";
    context.lineWidth = fine;
    context.strokeRect(x + fine / 2, y + fine / 2, side - fine, side - fine);
  }
}

import pytest

from layers.kernels.conv_tiles import SIZES, best_sizes


def _tiles(pixels, vectors):
    best, tiles = best_sizes(vectors, SIZES[vectors]), []
    while pixels:
        tiles.append(int(best[min(pixels, len(best) - 1)]))
        pixels -= tiles[-1]
    return tiles


@pytest.mark.parametrize("vectors", sorted(SIZES))
def test_tiles_of_a_row_are_all_of_its_pixels(vectors):
    for pixels in range(1, 200):
        assert sum(_tiles(pixels, vectors)) == pixels


@pytest.mark.parametrize("pixels", [8, 10, 12, 14, 16, 24, 28, 32, 56, 64, 112, 224])
def test_no_pixel_of_a_usual_row_is_a_tile_by_itself(pixels):
    # It would take as long as four: its sums wait for one another.
    assert min(_tiles(pixels, 1)) > 1
